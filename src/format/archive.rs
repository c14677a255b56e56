//! A backup as one stream: framed, each frame checked, so that half a backup is never taken for a whole one.
//!
//! ```text
//! "ALLUVIUM-BACKUP\x01", then frames: kind u8, length u32, payload, CRC-32C of these three u32; numbers big-endian
//! kinds: G  a piece of the GeoPackage, in order
//!        L  entries of the log: per entry key length u32, value length u32, key, value
//!        E  the end: the number of frames before it u64
//! ```

use std::io::{Error, ErrorKind, Read};

use bytes::{Buf, BufMut, Bytes, BytesMut};

const MAGIC: &[u8; 16] = b"ALLUVIUM-BACKUP\x01";
/// A frame of the log is closed when it has so much; an entry of the log is smaller than the log's largest chunk.
const FRAME_BYTES: usize = 1 << 20;
const MAX_FRAME_BYTES: usize = 256 << 20;

const GEOPACKAGE: u8 = b'G';
const LOG: u8 = b'L';
const END: u8 = b'E';

/// What a frame brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    GeoPackage(Bytes),
    /// Keys and values.
    Log(Vec<(Bytes, Bytes)>),
}

/// Makes a backup out of its two parts, frame by frame; ends after the first error.
pub fn write(
    mut geopackage: impl Read + Send + 'static,
    log: impl Iterator<Item = Result<(Bytes, Bytes), Error>> + Send + 'static,
) -> impl Iterator<Item = Result<Bytes, Error>> + Send {
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::with_capacity(FRAME_BYTES);
        match geopackage.by_ref().take(FRAME_BYTES as u64).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(_) => Some(Ok((GEOPACKAGE, piece))),
            Err(e) => Some(Err(e)),
        }
    });
    let mut log = log.peekable();
    let entries = std::iter::from_fn(move || {
        log.peek()?;
        let mut frame = Vec::new();
        while frame.len() < FRAME_BYTES
            && let Some(entry) = log.next()
        {
            match entry {
                Ok((key, value)) => {
                    frame.put_u32(key.len() as u32);
                    frame.put_u32(value.len() as u32);
                    frame.put_slice(&key);
                    frame.put_slice(&value);
                }
                Err(e) => return Some(Err(e)),
            }
        }
        Some(Ok((LOG, frame)))
    });
    let mut frames = pieces.chain(entries);
    let (mut count, mut state) = (0_u64, State::Begins);
    std::iter::from_fn(move || match state {
        State::Begins => {
            state = State::Goes;
            Some(Ok(Bytes::from_static(MAGIC)))
        }
        State::Goes => match frames.next() {
            Some(Ok((kind, payload))) => {
                count += 1;
                Some(Ok(frame(kind, &payload)))
            }
            Some(Err(e)) => {
                state = State::Ended;
                Some(Err(e))
            }
            None => {
                state = State::Ended;
                Some(Ok(frame(END, &count.to_be_bytes())))
            }
        },
        State::Ended => None,
    })
}

enum State {
    Begins,
    Goes,
    Ended,
}

fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 9);
    bytes.put_u8(kind);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(payload);
    let check = crc32c::crc32c(&bytes);
    bytes.put_u32(check);
    bytes.freeze()
}

/// Gives the pieces of a backup to `take`, in order. An error where it is no backup, was changed, or is not whole; what was
/// taken by then is to be thrown away.
pub fn read(mut from: impl Read, mut take: impl FnMut(Piece) -> Result<(), Error>) -> Result<(), Error> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(|_| broken("it is not a backup"))?;
    if &magic != MAGIC {
        return Err(broken("it is not a backup, or one of another version of this program"));
    }
    for count in 0_u64.. {
        let (kind, payload) = read_frame(&mut from)?;
        match kind {
            GEOPACKAGE => take(Piece::GeoPackage(payload))?,
            LOG => take(Piece::Log(entries(payload)?))?,
            END if *payload == count.to_be_bytes() => break,
            _ => return Err(broken("a frame is not what it must be")),
        }
    }
    if from.read(&mut [0])? == 0 { Ok(()) } else { Err(broken("there is something after its end")) }
}

fn read_frame(from: &mut impl Read) -> Result<(u8, Bytes), Error> {
    let cut_short = |e: Error| match e.kind() {
        ErrorKind::UnexpectedEof => broken("it is cut short"),
        _ => e,
    };
    let mut head = [0; 5];
    from.read_exact(&mut head).map_err(cut_short)?;
    let length = (&head[1..]).get_u32() as usize;
    if length > MAX_FRAME_BYTES {
        return Err(broken("a frame is longer than any"));
    }
    // As it comes, and not as long as it says that it is.
    let mut rest = Vec::new();
    from.take(length as u64 + 4).read_to_end(&mut rest)?;
    if rest.len() != length + 4 {
        return Err(broken("it is cut short"));
    }
    let check = rest.split_off(length);
    if crc32c::crc32c_append(crc32c::crc32c(&head), &rest).to_be_bytes() != *check {
        return Err(broken("a frame was changed"));
    }
    Ok((head[0], rest.into()))
}

fn entries(mut payload: Bytes) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut entries = Vec::new();
    while payload.has_remaining() {
        let short = |_| broken("an entry of the log is cut short");
        let key = payload.try_get_u32().map_err(short)? as usize;
        let value = payload.try_get_u32().map_err(short)? as usize;
        if payload.len() < key.saturating_add(value) {
            return Err(broken("an entry of the log is cut short"));
        }
        entries.push((payload.split_to(key), payload.split_to(value)));
    }
    Ok(entries)
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<u8> {
        let geopackage = vec![7_u8; FRAME_BYTES + 5];
        let entries = (0..3_u8).map(|n| Ok((Bytes::from(vec![n]), Bytes::from(vec![n; 600_000]))));
        let frames: Result<Vec<Bytes>, Error> = write(std::io::Cursor::new(geopackage), entries).collect();
        frames.unwrap().concat()
    }

    #[test]
    fn a_backup_comes_back_as_it_was() {
        let (mut geopackage, mut log) = (0, Vec::new());
        read(&*backup(), |piece| {
            match piece {
                Piece::GeoPackage(bytes) => geopackage += bytes.iter().filter(|b| **b == 7).count(),
                Piece::Log(entries) => log.extend(entries),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((geopackage, log.len()), (FRAME_BYTES + 5, 3));
        assert!((0..).zip(&log).all(|(n, (key, value))| **key == [n] && **value == vec![n; 600_000]));
    }

    #[test]
    fn half_a_backup_or_a_changed_one_is_none() {
        let whole = backup();
        let fails = |bytes: &[u8]| read(bytes, |_| Ok(())).is_err();
        for length in [0, 10, 16, 17, 30, FRAME_BYTES, whole.len() - 17, whole.len() - 1] {
            assert!(fails(&whole[..length]), "{length}");
        }
        for at in [0, 16, 17, 40, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(fails(&changed), "{at}");
        }
        assert!(fails(&[&*whole, b"x"].concat()));
        assert!(!fails(&whole));
    }
}
