//! What is on the disk, and how it is read.
//!
//! One key space, its keys distinguished by their first byte, all numbers big-endian:
//!
//! ```text
//! 0                                    -> id that the next log gets, u32
//! 1 name                               -> id u32, partitions u32
//! 2 id u32, partition u32              -> first offset that is still there, u64; none before the first cut
//! 3 id u32, partition u32, offset u64  -> chunk
//! chunk: append time in ms i64, then per record: key length u32, value length u32, key, value
//! ```
//!
//! A chunk holds what one commit appended to one partition, as much as [`CHUNK_RECORDS`] and [`CHUNK_BYTES`] allow, under
//! the offset of its first record. Chunks follow each other without gaps, and the last one of a partition is never deleted,
//! whatever is cut: it tells the partition's end and its last append time.

use bytes::{Buf, BufMut, Bytes};
use fjall::{Database, Guard, Keyspace};

use super::{BATCH_BYTES, BATCH_RECORDS};
use crate::log::{LogRecord, NewRecord};
use crate::model::{Offset, PartitionId};

const CHUNK_RECORDS: usize = 1024;
const CHUNK_BYTES: usize = 256 << 10;

pub const NEXT_ID_KEY: [u8; 1] = [0];
const LOG: u8 = 1;
const CUT: u8 = 2;
const CHUNK: u8 = 3;

type Result<T> = std::result::Result<T, String>;

pub fn log_key(name: &str) -> Vec<u8> {
    [&[LOG], name.as_bytes()].concat()
}

pub fn log_value(id: u32, partitions: u32) -> Vec<u8> {
    [id.to_be_bytes(), partitions.to_be_bytes()].concat()
}

pub fn cut_key(id: u32, partition: PartitionId) -> Vec<u8> {
    let mut key = vec![CUT];
    key.put_u32(id);
    key.put_u32(partition);
    key
}

pub fn chunk_key(id: u32, partition: PartitionId, first: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.put_u8(CHUNK);
    key.put_u32(id);
    key.put_u32(partition);
    key.put_u64(first);
    key
}

fn parse_chunk_key(mut key: &[u8]) -> Result<(u32, PartitionId, Offset)> {
    if key.len() != 17 || key.get_u8() != CHUNK {
        return Err("a chunk has a key that this program does not write".to_owned());
    }
    Ok((key.get_u32(), key.get_u32(), key.get_u64()))
}

/// Records on their way into one partition.
pub struct Chunks {
    pub next: Offset,
    append_time_ms: i64,
    chunks: Vec<(Offset, Vec<u8>)>,
}

impl Chunks {
    pub fn new(next: Offset, append_time_ms: i64) -> Chunks {
        Chunks { next, append_time_ms, chunks: Vec::new() }
    }

    pub fn push(&mut self, record: &NewRecord) -> Offset {
        let size = 8 + record.key.len() + record.value.len();
        let full = self.chunks.last().is_none_or(|(first, chunk)| {
            (self.next - first) as usize >= CHUNK_RECORDS || chunk.len() + size > CHUNK_BYTES
        });
        if full {
            self.chunks.push((self.next, self.append_time_ms.to_be_bytes().to_vec()));
        }
        if let Some((_, chunk)) = self.chunks.last_mut() {
            chunk.put_u32(record.key.len() as u32);
            chunk.put_u32(record.value.len() as u32);
            chunk.put_slice(&record.key);
            chunk.put_slice(&record.value);
        }
        self.next += 1;
        self.next - 1
    }

    pub fn append_time_ms(&self) -> i64 {
        self.append_time_ms
    }

    /// Each chunk with the offset of its first record.
    pub fn into_chunks(self) -> Vec<(Offset, Vec<u8>)> {
        self.chunks
    }
}

/// Gives the records of a chunk to `each`, with the chunk's append time.
fn parse_chunk(mut chunk: Bytes, mut each: impl FnMut(i64, Bytes, Bytes)) -> Result<()> {
    let broken = |_| "a chunk ends within a record".to_owned();
    let append_time_ms = chunk.try_get_i64().map_err(broken)?;
    while chunk.has_remaining() {
        let key_len = chunk.try_get_u32().map_err(broken)? as usize;
        let value_len = chunk.try_get_u32().map_err(broken)? as usize;
        if chunk.len() < key_len + value_len {
            return Err("a chunk ends within a record".to_owned());
        }
        let key = chunk.split_to(key_len);
        each(append_time_ms, key, chunk.split_to(value_len));
    }
    Ok(())
}

/// The records of a partition from `from` on, at most to `end`, whole chunks: a bounded amount. `seek` is the offset of the
/// first chunk to look at.
pub fn read(
    store: &Keyspace,
    id: u32,
    partition: PartitionId,
    seek: Offset,
    from: Offset,
    end: Offset,
) -> Result<Vec<LogRecord>> {
    let mut records = Vec::new();
    let mut bytes = 0;
    for item in store.range(chunk_key(id, partition, seek)..chunk_key(id, partition, end)) {
        let (key, chunk) = item.into_inner().map_err(text)?;
        let mut offset = parse_chunk_key(&key)?.2;
        bytes += chunk.len();
        parse_chunk(Bytes::from_owner(chunk), |append_time_ms, key, value| {
            if offset >= from {
                let key = Some(key).filter(|k| !k.is_empty());
                records.push(LogRecord { offset, append_time_ms, key, value: Some(value) });
            }
            offset += 1;
        })?;
        if !records.is_empty() && (records.len() + CHUNK_RECORDS > BATCH_RECORDS || bytes + CHUNK_BYTES > BATCH_BYTES) {
            break;
        }
    }
    Ok(records)
}

/// The offset of the chunk that holds `offset`, or of the last one before it; `offset` itself when there is none.
pub fn holding(store: &Keyspace, id: u32, partition: PartitionId, offset: Offset) -> Result<Offset> {
    match store.range(chunk_key(id, partition, 0)..=chunk_key(id, partition, offset)).next_back() {
        Some(item) => Ok(parse_chunk_key(&item.key().map_err(text)?)?.2),
        None => Ok(offset),
    }
}

/// The end of a partition and its last append time; zeros when nothing was ever appended.
pub fn tip(store: &Keyspace, id: u32, partition: PartitionId) -> Result<(Offset, i64)> {
    let Some(last) = store.range(chunk_key(id, partition, 0)..=chunk_key(id, partition, Offset::MAX)).next_back()
    else {
        return Ok((0, 0));
    };
    let (key, chunk) = last.into_inner().map_err(text)?;
    let (mut end, mut last_ms) = (parse_chunk_key(&key)?.2, 0);
    parse_chunk(Bytes::from_owner(chunk), |append_time_ms, _, _| {
        end += 1;
        last_ms = append_time_ms;
    })?;
    Ok((end, last_ms))
}

/// The logs that there are: name, id, number of partitions.
pub fn logs(store: &Keyspace) -> Result<Vec<(String, u32, u32)>> {
    let log = |item: Guard| {
        let (key, value) = item.into_inner().map_err(text)?;
        let name = String::from_utf8(key[1..].to_vec()).map_err(text)?;
        let mut value: &[u8] = &value;
        Ok((name, value.try_get_u32().map_err(text)?, value.try_get_u32().map_err(text)?))
    };
    store.prefix([LOG]).map(log).collect()
}

/// The first offset of a partition that is still there.
pub fn first(store: &Keyspace, id: u32, partition: PartitionId) -> Result<Offset> {
    match store.get(cut_key(id, partition)).map_err(text)? {
        Some(value) => (&*value).try_get_u64().map_err(text),
        None => Ok(0),
    }
}

pub fn next_id(store: &Keyspace) -> Result<u32> {
    match store.get(NEXT_ID_KEY).map_err(text)? {
        Some(value) => (&*value).try_get_u32().map_err(text),
        None => Ok(0),
    }
}

/// Deletes the chunks of a partition that end before `to`, but for the last; those that end before `from` were deleted
/// earlier. Takes its time, and comes to no harm when it is interrupted or does not reach the disk.
pub fn forget(
    database: &Database,
    store: &Keyspace,
    id: u32,
    partition: PartitionId,
    cut: std::ops::Range<Offset>,
) -> Result<()> {
    let from = holding(store, id, partition, cut.start)?;
    let to = holding(store, id, partition, cut.end)?;
    forget_keys(database, store, chunk_key(id, partition, from), chunk_key(id, partition, to))
}

/// Deletes all chunks of a log.
pub fn forget_log(database: &Database, store: &Keyspace, id: u32) -> Result<()> {
    forget_keys(database, store, chunk_key(id, 0, 0), chunk_key(id, PartitionId::MAX, Offset::MAX))
}

fn forget_keys(database: &Database, store: &Keyspace, from: Vec<u8>, to: Vec<u8>) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    let mut batch = database.batch();
    for item in store.range(from..to) {
        batch.remove(store, item.key().map_err(text)?);
        if batch.len() == CHUNK_RECORDS {
            std::mem::replace(&mut batch, database.batch()).commit().map_err(text)?;
        }
    }
    batch.commit().map_err(text)
}

/// Deletes what earlier runs were to delete and did not: chunks of logs that are gone, and chunks before a cut.
pub fn forget_leftovers(
    database: &Database,
    store: &Keyspace,
    first: impl Fn(u32, PartitionId) -> Option<Offset>,
) -> Result<()> {
    let mut from = chunk_key(0, 0, 0);
    while let Some(item) = store.range(from..vec![CHUNK + 1]).next() {
        let (id, partition, _) = parse_chunk_key(&item.key().map_err(text)?)?;
        match first(id, partition) {
            Some(first) => forget(database, store, id, partition, 0..first)?,
            None => forget_log(database, store, id)?,
        }
        from = chunk_key(id, partition, Offset::MAX);
    }
    Ok(())
}

pub fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}
