//! How much memory the features that are not yet in the long-term store may take: as it is set, or by the machine.

use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::layers::Error;

/// What every instance of a cluster should have alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Past it the oldest features are persisted before their time.
    #[serde(deserialize_with = "size")]
    pub soft_limit: Option<usize>,
    /// Past it writes are refused until there is room.
    #[serde(deserialize_with = "size")]
    pub hard_limit: Option<usize>,
}

/// Where the machine does not say how much it has.
const UNKNOWN: usize = 2 << 30;

impl Memory {
    /// The soft and the hard limit, bytes. What is not set: half of the machine's memory is the hard limit, and three quarters
    /// of that the soft one.
    pub fn limits(&self) -> (usize, usize) {
        match (self.soft_limit, self.hard_limit) {
            (Some(soft), Some(hard)) => (soft, hard),
            (Some(soft), None) => (soft, soft.saturating_add(soft / 3)),
            (None, Some(hard)) => (hard / 4 * 3, hard),
            (None, None) => {
                let hard = available().unwrap_or(UNKNOWN) / 2;
                (hard / 4 * 3, hard)
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.soft_limit == Some(0) || self.hard_limit == Some(0) {
            let key = if self.soft_limit == Some(0) { "memory.soft_limit" } else { "memory.hard_limit" };
            return Err(Error::at(key, "must be more than 0"));
        }
        match (self.soft_limit, self.hard_limit) {
            (Some(soft), Some(hard)) if soft >= hard => {
                Err(Error::at("memory.soft_limit", "must be less than memory.hard_limit"))
            }
            _ => Ok(()),
        }
    }
}

/// What the machine has, or the container that this process is in.
fn available() -> Option<usize> {
    let container = number(Path::new("/sys/fs/cgroup/memory.max"));
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let machine = total.and_then(|kb| kb.trim().parse::<usize>().ok()).map(|kb| kb << 10);
    container.into_iter().chain(machine).min()
}

/// `None` of a file that is not there, or says "max".
fn number(path: &Path) -> Option<usize> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A number of bytes, or a text with a unit: "384 MiB".
fn size<'de, D: Deserializer<'de>>(d: D) -> Result<Option<usize>, D::Error> {
    struct Size;

    impl Visitor<'_> for Size {
        type Value = usize;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number of bytes, or a size like \"384 MiB\"")
        }

        fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<usize, E> {
            usize::try_from(n).map_err(|_| E::custom(format!("{n} is not a size")))
        }

        fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<usize, E> {
            // From the environment, where every number comes so.
            self.visit_str(&n.to_string())
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<usize, E> {
            parse(text).ok_or_else(|| E::custom(format!("'{text}' is not a size like \"384 MiB\"")))
        }
    }

    d.deserialize_any(Size).map(Some)
}

fn parse(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = ["384 MiB", "2GiB", "1000", "5 kB", "7 b", " 3 mib "].map(parse);
        assert_eq!(sizes, [384 << 20, 2 << 30, 1_000, 5_000, 7, 3 << 20].map(Some));
        for bad in ["", "MiB", "-1", "1.5 GiB", "1 TB", "99999999999 GiB"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_set_follows_from_what_is() {
        let limits = |soft_limit, hard_limit| Memory { soft_limit, hard_limit }.limits();
        assert_eq!(limits(Some(300), None), (300, 400));
        assert_eq!(limits(None, Some(400)), (300, 400));
        let (soft, hard) = limits(None, None);
        assert!(soft > 64 << 20 && soft < hard);
    }
}
