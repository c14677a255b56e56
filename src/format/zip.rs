//! Files in a ZIP archive (PKWARE's APPNOTE, without ZIP64), deflated as they are read: it needs no size before the content.

use std::io::{Error, Read, Result, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// A file of an archive.
pub struct Entry {
    /// UTF-8.
    pub name: String,
    pub content: Box<dyn Read + Send>,
}

/// Bytes that fit into an archive before and after they are deflated, whatever they are.
pub const MOST_BYTES: u64 = 4_000_000_000;

const VERSION: u16 = 20;
/// The sizes stand behind the content; names are UTF-8.
const FLAGS: u16 = 1 << 3 | 1 << 11;
const DEFLATE: u16 = 8;
/// Midnight of 1980-01-01, when time begins here: an archive of the same content has the same bytes.
const TIME: [u8; 4] = [0, 0, 0x21, 0];

/// What of a file is told twice: behind its content and in the directory.
struct Listed {
    name: String,
    crc: u32,
    deflated: u32,
    whole: u32,
    at: u32,
}

/// Writes an archive of these files. An error where a number does not fit: the caller sees to it by [`MOST_BYTES`].
pub fn write(entries: impl IntoIterator<Item = Entry>, out: &mut impl Write) -> Result<()> {
    let mut out = Counted { out, bytes: 0 };
    let mut directory = Vec::new();
    for entry in entries {
        directory.push(one(entry, &mut out)?);
    }
    let start = number(out.bytes)?;
    for file in &directory {
        out.write_all(b"PK\x01\x02")?;
        out.short(VERSION)?;
        head(&mut out, file)?;
        // No comment, on the first disk, without attributes.
        out.write_all(&[0; 10])?;
        out.int(file.at)?;
        out.write_all(file.name.as_bytes())?;
    }
    let size = number(out.bytes)? - start;
    let files = u16::try_from(directory.len()).map_err(Error::other)?;
    out.write_all(b"PK\x05\x06\0\0\0\0")?;
    out.short(files)?;
    out.short(files)?;
    out.int(size)?;
    out.int(start)?;
    out.short(0)
}

fn one<W: Write>(entry: Entry, out: &mut Counted<'_, W>) -> Result<Listed> {
    let at = number(out.bytes)?;
    let mut file = Listed { name: entry.name, crc: 0, deflated: 0, whole: 0, at };
    out.write_all(b"PK\x03\x04")?;
    head(out, &file)?;
    out.write_all(file.name.as_bytes())?;
    let start = out.bytes;
    let (mut content, mut crc) = (entry.content, Crc::new());
    let mut deflate = DeflateEncoder::new(&mut *out, Compression::fast());
    let mut piece = vec![0; 64 << 10];
    let mut whole = 0;
    loop {
        let n = content.read(&mut piece)?;
        if n == 0 {
            break;
        }
        crc.update(&piece[..n]);
        whole += n as u64;
        deflate.write_all(&piece[..n])?;
    }
    deflate.finish()?;
    (file.crc, file.deflated, file.whole) = (crc.sum(), number(out.bytes - start)?, number(whole)?);
    out.write_all(b"PK\x07\x08")?;
    for n in [file.crc, file.deflated, file.whole] {
        out.int(n)?;
    }
    Ok(file)
}

/// What the head of a file and its line in the directory have in common.
fn head<W: Write>(out: &mut Counted<'_, W>, file: &Listed) -> Result<()> {
    for n in [VERSION, FLAGS, DEFLATE] {
        out.short(n)?;
    }
    out.write_all(&TIME)?;
    for n in [file.crc, file.deflated, file.whole] {
        out.int(n)?;
    }
    out.short(u16::try_from(file.name.len()).map_err(Error::other)?)?;
    // Nothing extra.
    out.short(0)
}

fn number(n: u64) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::other("the archive is larger than 4 GiB"))
}

struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Counted<'_, W> {
    fn short(&mut self, n: u16) -> Result<()> {
        self.write_all(&n.to_le_bytes())
    }

    fn int(&mut self, n: u32) -> Result<()> {
        self.write_all(&n.to_le_bytes())
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}
