//! Connections to the file: how each is set up, and those that read.
//!
//! Invariant: a [`Reader`] stands in one read transaction from its making to its drop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use crate::format::geopackage::blob;

/// Connections kept open for the next reader.
const IDLE_READERS: usize = 8;

/// How long to wait for another program that writes.
const BUSY: Duration = Duration::from_secs(10);

/// Prepared statements kept per connection.
const STATEMENTS: usize = 64;

/// The connection that writes; it makes the file when there is none. A committed transaction survives loss of power.
pub fn writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = set_up(Connection::open_with_flags(path, flags)?)?;
    connection.execute_batch("PRAGMA cache_size = -32768; PRAGMA journal_size_limit = 67108864;")?;
    Ok(connection)
}

fn set_up(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    blob::register_functions(&connection)?;
    Ok(connection)
}

/// Makes readers, and keeps their connections for the next.
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Readers {
        Readers { path, idle: Mutex::default() }
    }

    /// The file's.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader whose moment is that of its first query.
    pub fn begin(self: &Arc<Self>) -> rusqlite::Result<Reader> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = set_up(Connection::open_with_flags(&self.path, flags)?)?;
                connection.execute_batch("PRAGMA query_only = ON; PRAGMA mmap_size = 268435456;")?;
                connection
            }
        };
        connection.execute_batch("BEGIN")?;
        Ok(Reader { connection: Some(connection), home: self.clone() })
    }
}

/// A connection in a read transaction, which goes back where it came from when dropped.
pub struct Reader {
    connection: Option<Connection>,
    home: Arc<Readers>,
}

impl std::ops::Deref for Reader {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only drop takes the connection")
    }
}

impl std::ops::DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only drop takes the connection")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.execute_batch("ROLLBACK").is_ok()
        {
            let mut idle = self.home.idle.lock();
            if idle.len() < IDLE_READERS {
                idle.push(connection);
            }
        }
    }
}
