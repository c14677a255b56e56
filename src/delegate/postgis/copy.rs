//! Rows out of binary `COPY`.

use std::sync::Arc;

use super::row::read;
use crate::delegate::Row;
use crate::model::FeatureType;

/// Reads the rows of a type's `select_list`, whose bytes come in pieces that may end anywhere.
pub struct CopyReader {
    feature_type: Arc<FeatureType>,
    /// What has come of a row, or of the header, that is not there whole.
    rest: Vec<u8>,
    header_read: bool,
}

impl CopyReader {
    pub fn new(feature_type: Arc<FeatureType>) -> CopyReader {
        CopyReader { feature_type, rest: Vec::new(), header_read: false }
    }

    /// The rows that end in this piece.
    pub fn rows(&mut self, piece: Vec<u8>) -> Result<Vec<Row>, sqlx::Error> {
        let mut bytes = std::mem::take(&mut self.rest);
        if bytes.is_empty() {
            bytes = piece;
        } else {
            bytes.extend_from_slice(&piece);
        }
        let mut left = bytes.as_slice();
        if !self.header_read
            && let Some(after) = after_header(left)
        {
            (left, self.header_read) = (after, true);
        }
        let (mut rows, mut fields) = (Vec::new(), Vec::new());
        while self.header_read
            && let Some(after) = tuple(left, &mut fields)
        {
            let mut next = fields.iter().copied();
            let missing = || sqlx::Error::Decode("COPY gives rows of too few columns".into());
            rows.push(read(&self.feature_type, || next.next().ok_or_else(missing))?);
            left = after;
        }
        self.rest = left.to_vec();
        Ok(rows)
    }
}

/// What follows the header: a signature of 11 bytes, 4 of flags, and an extension that begins with its length.
fn after_header(bytes: &[u8]) -> Option<&[u8]> {
    let (length, after) = bytes.get(15..)?.split_first_chunk()?;
    after.get(u32::from_be_bytes(*length) as usize..)
}

/// The fields of the first row, and what follows it. `None` when it has not come whole, and at the end, which is a row of -1
/// fields.
fn tuple<'a>(bytes: &'a [u8], fields: &mut Vec<Option<&'a [u8]>>) -> Option<&'a [u8]> {
    fields.clear();
    let (count, mut left) = bytes.split_first_chunk()?;
    for _ in 0..u16::try_from(i16::from_be_bytes(*count)).ok()? {
        let (length, after) = left.split_first_chunk()?;
        let (field, after) = match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => after.split_at_checked(length).map(|(field, after)| (Some(field), after))?,
            // -1: null.
            Err(_) => (None, after),
        };
        fields.push(field);
        left = after;
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    #[test]
    fn rows_are_whole_wherever_the_pieces_end() {
        let ft: FeatureType = serde_json::from_value(serde_json::json!({
            "name": "t", "properties": [{ "name": "a", "type": "string" }, { "name": "n", "type": "int32" }],
        }))
        .unwrap();
        let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
        // No flags; an extension of three bytes, which nobody knows.
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3, 9, 9, 9]);
        let fields: [[Option<&[u8]>; 4]; 2] = [
            [Some(b"x"), Some(&7i64.to_be_bytes()), Some(b"text"), None],
            [Some(b"yy"), Some(&[0; 8]), Some(b""), Some(&[0, 0, 0, 5])],
        ];
        for row in &fields {
            bytes.extend_from_slice(&4i16.to_be_bytes());
            for field in row {
                bytes.extend_from_slice(&field.map_or(-1, |f| f.len() as i32).to_be_bytes());
                bytes.extend_from_slice(field.unwrap_or_default());
            }
        }
        bytes.extend_from_slice(&(-1i16).to_be_bytes());
        for size in 1..=bytes.len() {
            let mut reader = CopyReader::new(Arc::new(ft.clone()));
            let rows: Vec<Row> = bytes.chunks(size).flat_map(|piece| reader.rows(piece.to_vec()).unwrap()).collect();
            let read: Vec<_> = rows.iter().map(|r| (&*r.feature.id, r.version, &r.feature.properties[..])).collect();
            let first = [Value::String("text".into()), Value::Null];
            let second = [Value::String("".into()), Value::Int(5)];
            assert_eq!(read, [("x", Some(7), &first[..]), ("yy", None, &second[..])], "pieces of {size}");
        }
    }
}
