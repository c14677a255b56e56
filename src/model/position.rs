//! Where in a log something stands: offsets, positions, watermarks, and which partition an id belongs to.

use std::collections::BTreeMap;

/// A record's place in its partition. As a bound it is exclusive: the next offset.
pub type Offset = u64;
/// A partition of a feature type's log, from 0.
pub type PartitionId = u32;

/// How far a read or a write has come, per feature type and partition: 'everything before these offsets'.
///
/// As a token (the `Alluvium-Position` header) it is opaque to clients: `name@incarnation=offset,offset;...`.
/// Several tokens merge by maximum. Offsets of another incarnation never compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(BTreeMap<String, TypePosition>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct TypePosition {
    incarnation: String,
    offsets: Vec<Offset>,
}

impl Position {
    /// Sets the offsets of one feature type, or raises them where it is there already.
    pub fn raise(&mut self, feature_type: &str, incarnation: &str, offsets: &[Offset]) {
        let entry = self
            .0
            .entry(feature_type.to_owned())
            .or_insert_with(|| TypePosition { incarnation: incarnation.to_owned(), offsets: Vec::new() });
        if entry.incarnation != incarnation {
            *entry = TypePosition { incarnation: incarnation.to_owned(), offsets: Vec::new() };
        }
        if entry.offsets.len() < offsets.len() {
            entry.offsets.resize(offsets.len(), 0);
        }
        for (have, new) in entry.offsets.iter_mut().zip(offsets) {
            *have = (*have).max(*new);
        }
    }

    /// Merges `other` by maximum.
    pub fn merge(&mut self, other: &Position) {
        for (name, p) in &other.0 {
            self.raise(name, &p.incarnation, &p.offsets);
        }
    }

    /// The offsets asked of a feature type; `None` when it is not named. An incarnation that differs is an error: the
    /// token belongs to a type of that name that is gone.
    pub fn offsets(&self, feature_type: &str, incarnation: &str) -> Result<Option<&[Offset]>, StalePosition> {
        match self.0.get(feature_type) {
            None => Ok(None),
            Some(p) if p.incarnation == incarnation => Ok(Some(&p.offsets)),
            Some(_) => Err(StalePosition { feature_type: feature_type.to_owned() }),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A position token of a feature type that was removed and made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position names feature type '{feature_type}' as it was before it was made anew")]
pub struct StalePosition {
    pub feature_type: String,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, p)) in self.0.iter().enumerate() {
            let offsets: Vec<String> = p.offsets.iter().map(ToString::to_string).collect();
            write!(f, "{}{name}@{}={}", if i > 0 { ";" } else { "" }, p.incarnation, offsets.join(","))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Position {
    type Err = String;

    /// Reads a token; several, joined by `;`, merge by maximum.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut position = Position::default();
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let bad = || format!("'{part}' is not part of a position token");
            let (name, rest) = part.split_once('@').ok_or_else(bad)?;
            let (incarnation, offsets) = rest.split_once('=').ok_or_else(bad)?;
            let offsets: Result<Vec<Offset>, _> = offsets.split(',').map(str::parse).collect();
            let offsets = offsets.map_err(|_| bad())?;
            if offsets.len() > 4096 {
                return Err(bad());
            }
            position.raise(name, incarnation, &offsets);
        }
        Ok(position)
    }
}

/// What the delegate knows of one partition. All three are exclusive: the next offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// Every record before it is in the delegate, or superseded by an unconditional full record before `as_of`.
    pub durable_through: Offset,
    /// Entries last changed before it have left (or may leave) every index.
    pub evict_through: Offset,
    /// The position that the sweeper had applied when it took its batch.
    pub as_of: Offset,
}

/// The partition of a key: murmur2, as Kafka's Java client partitions by default, so that foreign producers agree with us.
pub fn partition_of(key: &str, partitions: u32) -> PartitionId {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    for (i, byte) in tail.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * i);
    }
    if !tail.is_empty() {
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_that_of_the_java_client() {
        // The vectors of org.apache.kafka.common.utils.UtilsTest.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn positions_merge_by_maximum_and_know_their_incarnation() {
        let mut p: Position = "ships@k1=3,9".parse().unwrap();
        p.merge(&"ships@k1=5,2;tracks@k2=1".parse().unwrap());
        assert_eq!(p.to_string(), "ships@k1=5,9;tracks@k2=1");
        assert_eq!(p.offsets("ships", "k1"), Ok(Some(&[5, 9][..])));
        assert!(p.offsets("ships", "k0").is_err());
        assert_eq!(p.offsets("other", "k1"), Ok(None));
        assert!("ships=3".parse::<Position>().is_err());
    }
}
