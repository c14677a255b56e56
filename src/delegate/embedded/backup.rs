//! Copying the file while it is written, by SQLite's online backup.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::schema;
use crate::delegate::{DelegateBackup, DelegateError};

/// Copies what `from`, which reads the file `path`, sees: beside it, in a file that is gone when it is closed.
pub fn copy(from: &Connection, path: &Path) -> Result<DelegateBackup, DelegateError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".backup");
    let name = PathBuf::from(name);
    let unavailable = |e: std::io::Error| DelegateError::Unavailable(format!("{}: {e}", name.display()));
    // One that was left when the program was killed.
    remove(&name).map_err(unavailable)?;
    let copied = copy_to(from, &name);
    let file = File::open(&name).map_err(unavailable);
    remove(&name).map_err(unavailable)?;
    Ok(DelegateBackup { types: copied?, file: file? })
}

fn copy_to(
    from: &Connection,
    name: &Path,
) -> Result<Vec<(crate::model::FeatureType, Vec<crate::model::Watermark>)>, DelegateError> {
    let mut copy = Connection::open(name)?;
    // All pages at once: they are of one moment, and nobody who writes waits for that.
    Backup::new(from, &mut copy)?.run_to_completion(i32::MAX, Duration::from_millis(10), None)?;
    let types = schema::catalogue(&copy)?.1;
    let types: Result<Vec<_>, DelegateError> = types
        .into_iter()
        .map(|t| {
            let watermarks = schema::watermarks(&copy, &t)?;
            Ok((t, watermarks))
        })
        .collect();
    copy.close().map_err(|(_, e)| e)?;
    types
}

fn remove(name: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut each = name.as_os_str().to_owned();
        each.push(suffix);
        match std::fs::remove_file(&each) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
