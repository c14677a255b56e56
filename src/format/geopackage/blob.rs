//! Geometry as a GeoPackage column has it: a header with the CRS and the envelope before ISO WKB (OGC 12-128r17, 2.1.3).

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use crate::model::{Geometry, GeometryKind, Rect};

const HEADER: usize = 8;
const LITTLE_ENDIAN: u8 = 0b1;
const EMPTY: u8 = 0b1_0000;
const ENVELOPE_XY: u8 = 0b10;

/// The blob of a geometry. Points have no envelope: it would be longer than they are.
pub fn encode(geometry: &Geometry, srs_id: i32) -> Vec<u8> {
    let wkb = geometry.wkb();
    let mut blob = Vec::with_capacity(HEADER + 32 + wkb.len());
    blob.extend_from_slice(b"GP\0");
    let bounds = geometry.bounds();
    let envelope = bounds.filter(|_| geometry.kind() != GeometryKind::Point);
    let empty = if bounds.is_none() { EMPTY } else { 0 };
    blob.push(LITTLE_ENDIAN | empty | if envelope.is_some() { ENVELOPE_XY } else { 0 });
    blob.extend_from_slice(&srs_id.to_le_bytes());
    if let Some(r) = envelope {
        for edge in [r.min_x, r.max_x, r.min_y, r.max_y] {
            blob.extend_from_slice(&edge.to_le_bytes());
        }
    }
    blob.extend_from_slice(wkb);
    blob
}

/// The geometry of a blob, which any tool may have written.
pub fn decode(blob: &[u8]) -> Result<Geometry, String> {
    let (_, wkb) = split(blob).ok_or("not a GeoPackage geometry")?;
    Geometry::from_wkb(wkb).map_err(|e| e.to_string())
}

/// The envelope; `None` of an empty geometry and of what is none.
pub fn bounds(blob: &[u8]) -> Option<Rect> {
    let (envelope, wkb) = split(blob)?;
    if let Some(rect) = envelope {
        return Some(rect);
    }
    // By far the most common: a plain point.
    if let [1, 1, 0, 0, 0, xy @ ..] = wkb
        && let Some((x, y)) = double(xy, true).zip(double(xy.get(8..)?, true))
        && x.is_finite()
    {
        return Some(Rect { min_x: x, min_y: y, max_x: x, max_y: y });
    }
    Geometry::from_wkb(wkb).ok()?.bounds()
}

/// The envelope, if the header has one, and the WKB.
fn split(blob: &[u8]) -> Option<(Option<Rect>, &[u8])> {
    let [b'G', b'P', _, flags, _, _, _, _, rest @ ..] = blob else { return None };
    let little = flags & LITTLE_ENDIAN != 0;
    let doubles = match (flags >> 1) & 0b111 {
        0 => 0,
        1 => 4,
        2 | 3 => 6,
        4 => 8,
        _ => return None,
    };
    let (envelope, wkb) = rest.split_at_checked(doubles * 8)?;
    let edge = |i: usize| double(envelope.get(i * 8..)?, little).filter(|e| e.is_finite());
    let rect = || Some(Rect { min_x: edge(0)?, max_x: edge(1)?, min_y: edge(2)?, max_y: edge(3)? });
    Some((rect().filter(|_| flags & EMPTY == 0), wkb))
}

fn double(bytes: &[u8], little: bool) -> Option<f64> {
    let eight = *bytes.first_chunk::<8>()?;
    Some(if little { f64::from_le_bytes(eight) } else { f64::from_be_bytes(eight) })
}

/// The functions that the triggers of an R-tree call, which every connection that writes must have (annex F.3).
pub fn register_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    let edge = |name: &str, edge: fn(Rect) -> f64| {
        connection.create_scalar_function(name, 1, flags, move |context| Ok(envelope(context).flatten().map(edge)))
    };
    edge("ST_MinX", |r| r.min_x)?;
    edge("ST_MaxX", |r| r.max_x)?;
    edge("ST_MinY", |r| r.min_y)?;
    edge("ST_MaxY", |r| r.max_y)?;
    connection
        .create_scalar_function("ST_IsEmpty", 1, flags, |context| Ok(envelope(context).map(|bounds| bounds.is_none())))
}

/// Of the argument; `None` when it is no blob.
fn envelope(context: &Context<'_>) -> Option<Option<Rect>> {
    match context.get_raw(0) {
        ValueRef::Blob(blob) => Some(bounds(blob)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_of_either_byte_order_are_read() {
        let point = Geometry::point(1.5, -2.0).unwrap();
        let blob = encode(&point, 4326);
        assert_eq!(blob[..8], [b'G', b'P', 0, 1, 0xe6, 0x10, 0, 0]);
        assert_eq!(decode(&blob), Ok(point.clone()));
        assert_eq!(bounds(&blob), point.bounds());

        let mut big = vec![b'G', b'P', 0, 0b10, 0, 0, 0x10, 0xe6];
        for edge in [1.5_f64, 1.5, -2.0, -2.0] {
            big.extend_from_slice(&edge.to_be_bytes());
        }
        big.extend_from_slice(&[0, 0, 0, 0, 1]);
        big.extend_from_slice(&1.5_f64.to_be_bytes());
        big.extend_from_slice(&(-2.0_f64).to_be_bytes());
        assert_eq!(decode(&big), Ok(point.clone()));
        assert_eq!(bounds(&big), point.bounds());
    }

    #[test]
    fn what_is_no_geometry_is_an_error() {
        for blob in [&b""[..], b"GP", b"GP\0\x03\0\0\0\0\0", b"XX\0\x01\0\0\0\0", b"GP\0\x0f\0\0\0\0"] {
            assert!(decode(blob).is_err() && bounds(blob).is_none(), "{blob:?}");
        }
    }
}
