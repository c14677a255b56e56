//! A backup of an embedded store while it works.
//!
//! Invariant: what the backup's log holds begins at or before the `durable_through` of the backup's delegate, and ends after
//! it, so a store that starts from it replays the rest. For that the delegate is copied first and the log second, and nothing
//! is cut in between. A write that was answered before the backup began is in the log by then, and so in one of the two.

use std::io::Error;

use bytes::Bytes;

use super::{CatalogueError, Store};
use crate::delegate::DelegateBackup;
use crate::format::archive;
use crate::log::LogBackup;

/// Of removing a feature type while it is copied.
const ATTEMPTS: usize = 3;

/// The frames of a backup, as [`archive`] has them. Reading them waits for the disk.
pub type Backup = Box<dyn Iterator<Item = Result<Bytes, Error>> + Send>;

impl Store {
    /// `Invalid`: the long-term store has tools of its own for that.
    pub async fn backup(&self) -> Result<Backup, CatalogueError> {
        let _nothing_is_cut = self.cutting.write().await;
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let delegate = self.delegate.backup().await?;
            let log = self.log.backup().await?;
            match gap(&delegate, &log) {
                None => return Ok(Box::new(archive::write(delegate.file, log.entries))),
                Some(what) => why = what,
            }
        }
        Err(CatalogueError::Unavailable(why))
    }
}

/// Where the two do not go together: a feature type was removed between the two copies.
fn gap(delegate: &DelegateBackup, log: &LogBackup) -> Option<String> {
    delegate.types.iter().find_map(|(ft, watermarks)| {
        let none = Vec::new();
        let ranges = log.ranges.get(&ft.log_name()).unwrap_or(&none);
        let whole = watermarks.len() == ranges.len()
            && watermarks.iter().zip(ranges).all(|(w, range)| (range.start..=range.end).contains(&w.durable_through));
        (!whole).then(|| format!("the log of '{}' does not go with the copy of the long-term store", ft.name))
    })
}
