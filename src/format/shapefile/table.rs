//! The table of attributes (`.dbf`, dBASE III): columns of fixed widths, every value as text.

use crate::format::file::FileError;
use crate::format::gml::write_value;
use crate::model::value::format_date;
use crate::model::{FeatureType, PropertyType, Value};

/// The longest name and the longest text of the format, bytes.
const NAME: usize = 10;
const TEXT: usize = 254;

/// The columns after that of the id.
pub struct Table {
    columns: Vec<Column>,
    row: usize,
}

struct Column {
    name: String,
    kind: u8,
    width: usize,
    decimals: u8,
}

impl Table {
    /// The id and these properties. An error where a row would be too long.
    pub fn new(ft: &FeatureType, properties: &[usize]) -> Result<Table, FileError> {
        let mut columns = vec![column("id".into(), PropertyType::String)];
        for property in properties.iter().map(|slot| &ft.properties[*slot]) {
            let name = unique(&property.name, &columns);
            columns.push(column(name, property.kind));
        }
        let row = 1 + columns.iter().map(|c| c.width).sum::<usize>();
        if row > usize::from(u16::MAX) {
            let what = format!("'{}' has too many properties for a Shapefile: a row would have {row} bytes", ft.name);
            return Err(FileError::Format(what));
        }
        Ok(Table { columns, row })
    }

    /// Bytes of a row.
    pub fn row_size(&self) -> usize {
        self.row
    }

    /// The head of a file of so many rows.
    pub fn header(&self, rows: u32) -> Vec<u8> {
        let size = 32 * (self.columns.len() + 1) + 1;
        // The last change was on 1970-01-01.
        let mut out = vec![3, 70, 1, 1];
        out.extend_from_slice(&rows.to_le_bytes());
        out.extend_from_slice(&(size as u16).to_le_bytes());
        out.extend_from_slice(&(self.row as u16).to_le_bytes());
        out.resize(32, 0);
        for c in &self.columns {
            let start = out.len();
            out.extend_from_slice(c.name.as_bytes());
            out.resize(start + 11, 0);
            out.extend_from_slice(&[c.kind, 0, 0, 0, 0, c.width as u8, c.decimals]);
            out.resize(start + 32, 0);
        }
        out.push(b'\r');
        out
    }

    /// Appends a row; an error where a number is too long for its column.
    pub fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        id: &str,
        values: impl Iterator<Item = &'a Value>,
    ) -> Result<(), FileError> {
        out.push(b' ');
        let mut columns = self.columns.iter();
        if let Some(c) = columns.next() {
            c.left(out, id.as_bytes());
        }
        columns.zip(values).try_for_each(|(c, value)| {
            let too_long = |text| {
                let what =
                    format!("feature '{id}': {text} has more digits than the column '{}' of a Shapefile", c.name);
                FileError::Format(what)
            };
            c.write(out, value).map_err(too_long)
        })
    }
}

fn column(name: String, kind: PropertyType) -> Column {
    let (kind, width, decimals) = match kind {
        PropertyType::String | PropertyType::Json | PropertyType::Bytes => (b'C', TEXT, 0),
        PropertyType::Uuid => (b'C', 36, 0),
        // As text: the format has days alone.
        PropertyType::DateTime => (b'C', 27, 0),
        PropertyType::Date => (b'D', 8, 0),
        PropertyType::Boolean => (b'L', 1, 0),
        PropertyType::Int32 => (b'N', 11, 0),
        // Readers take what is wider for a number with a fraction.
        PropertyType::Int64 => (b'N', 18, 0),
        // No number needs more when it is written as short as can be.
        PropertyType::Number => (b'N', 24, 15),
    };
    Column { name, kind, width, decimals }
}

/// The name as it is, or cut and numbered until no column before it has it.
fn unique(name: &str, before: &[Column]) -> String {
    let free = |name: &String| !before.iter().any(|c| c.name.eq_ignore_ascii_case(name));
    let numbered = (1..).map(|n| {
        let number = format!("_{n}");
        format!("{}{number}", cut(name, NAME - number.len()))
    });
    // One of them is free: they are all different.
    std::iter::once(cut(name, NAME).to_owned()).chain(numbered).find(free).unwrap_or_default()
}

/// The longest beginning of a text that has at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Column {
    /// The error is the number.
    fn write(&self, out: &mut Vec<u8>, value: &Value) -> Result<(), String> {
        let mut text = Vec::new();
        match value {
            Value::Null => text.extend((self.kind == b'L').then_some(b'?')),
            Value::Bool(b) => text.push(if *b { b'T' } else { b'F' }),
            Value::String(s) | Value::Json(s) => text.extend_from_slice(cut(s, TEXT).as_bytes()),
            Value::Number(n) => text.extend_from_slice(zmij::Buffer::new().format(*n).as_bytes()),
            Value::Date(days) => text.extend(format_date(*days).bytes().filter(|b| *b != b'-')),
            value => write_value(&mut text, value),
        }
        if self.kind != b'N' {
            self.left(out, &text);
        } else if text.len() > self.width {
            return Err(String::from_utf8_lossy(&text).into_owned());
        } else {
            out.extend(std::iter::repeat_n(b' ', self.width - text.len()));
            out.extend_from_slice(&text);
        }
        Ok(())
    }

    fn left(&self, out: &mut Vec<u8>, text: &[u8]) {
        let text = &text[..text.len().min(self.width)];
        out.extend_from_slice(text);
        out.extend(std::iter::repeat_n(b' ', self.width - text.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_different() {
        let ft: FeatureType = serde_json::from_value(serde_json::json!({"name": "t", "properties": [
            {"name": "a_long_name_of_a_column", "type": "string"}, {"name": "a_long_nam_", "type": "boolean"},
            {"name": "A_LONG_NAM", "type": "int32"}, {"name": "größenänderung", "type": "number"},
        ]}))
        .unwrap();
        let table = Table::new(&ft, &[0, 1, 2, 3]).unwrap();
        let names: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["id", "a_long_nam", "a_long_n_1", "A_LONG_N_2", "größenä"]);
        let mut row = Vec::new();
        let long = "ä".repeat(200);
        let values = [Value::String(long.into()), Value::Null, Value::Int(-5), Value::Number(-1.7976931348623157e308)];
        table.write(&mut row, "t.1", values.iter()).unwrap();
        assert_eq!(row.len(), table.row_size());
        let text = String::from_utf8(row).unwrap();
        assert_eq!(text[255..], format!("{}?         -5-1.7976931348623157e+308", "ä".repeat(127)));
    }

    #[test]
    fn no_number_is_cut() {
        let ft: FeatureType = serde_json::from_value(serde_json::json!({"name": "t", "properties": [
            {"name": "n", "type": "int64"}, {"name": "m", "type": "int32"},
        ]}))
        .unwrap();
        let table = Table::new(&ft, &[0, 1]).unwrap();
        let written = |n: i64| table.write(&mut Vec::new(), "t.1", [Value::Int(n), Value::Int(i32::MIN.into())].iter());
        assert!(written(999_999_999_999_999_999).is_ok());
        assert!(written(i64::MIN).unwrap_err().to_string().contains("-9223372036854775808 has more digits"));
    }

    #[test]
    fn a_row_has_its_limit() {
        let properties: Vec<_> =
            (0..300).map(|n| serde_json::json!({"name": format!("p{n}"), "type": "string"})).collect();
        let ft: FeatureType =
            serde_json::from_value(serde_json::json!({"name": "t", "properties": properties})).unwrap();
        let all: Vec<usize> = (0..300).collect();
        assert!(matches!(Table::new(&ft, &all), Err(FileError::Format(_))));
        assert!(Table::new(&ft, &all[..200]).is_ok());
    }
}
