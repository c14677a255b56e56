//! Rows of CSV into GeoJSON Features.
//!
//! Owns which column means what; does not own whether a value is good: what is not of its property's type is passed on as a
//! string, for the server to refuse with its reason.

use ::csv::{ByteRecord, StringRecord};

use crate::format::json;
use crate::model::PropertyType;

/// Column names given instead of guessed.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub lon: Option<String>,
    pub lat: Option<String>,
    pub id: Option<String>,
}

/// What the columns of a file mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    id: Option<usize>,
    position: Option<(usize, usize)>,
    /// Column, and the property with its type.
    properties: Vec<(usize, String, PropertyType)>,
    /// Columns that mean nothing here.
    pub ignored: Vec<String>,
}

const LON: [&str; 6] = ["lon", "longitude", "lng", "long", "x", "easting"];
const LAT: [&str; 5] = ["lat", "latitude", "y", "northing", "lat_dd"];
const ID: [&str; 2] = ["id", "fid"];

impl Columns {
    /// Finds the columns by name, whatever the case: coordinates as people call them, an `id`, and the properties.
    /// The error names a column that was asked for and is not there, half a position, or all columns when none means anything.
    pub fn find(
        header: &StringRecord,
        properties: &[(String, PropertyType)],
        names: &Names,
    ) -> Result<Columns, String> {
        let at =
            |name: &str| header.iter().position(|h| h.trim_start_matches('\u{feff}').trim().eq_ignore_ascii_case(name));
        let column = |given: &Option<String>, usual: &[&str]| match given {
            Some(name) => at(name).map(Some).ok_or_else(|| format!("there is no column '{name}'")),
            None => Ok(usual.iter().find_map(|name| at(name))),
        };
        let position = match (column(&names.lon, &LON)?, column(&names.lat, &LAT)?) {
            (Some(lon), Some(lat)) => Some((lon, lat)),
            (None, None) => None,
            _ => return Err("a column of longitudes and one of latitudes are needed, only one of them is there".into()),
        };
        let id = column(&names.id, &ID)?;
        let mut columns = Columns { id, position, ..Columns::default() };
        for (i, name) in header.iter().enumerate() {
            let name = name.trim_start_matches('\u{feff}').trim();
            match properties.iter().find(|(p, _)| p == name || p.eq_ignore_ascii_case(name)) {
                Some((property, kind)) => columns.properties.push((i, property.clone(), *kind)),
                None if id == Some(i) || position.is_some_and(|(lon, lat)| lon == i || lat == i) => {}
                None => columns.ignored.push(name.to_owned()),
            }
        }
        if position.is_none() && columns.properties.is_empty() {
            let columns = columns.ignored.join("', '");
            return Err(format!(
                "no column is a coordinate or a property of the collection (are they separated by commas?): '{columns}'"
            ));
        }
        Ok(columns)
    }

    /// Appends a row as a GeoJSON Feature, without a line feed. The error says what no server could make sense of.
    pub fn feature(&self, row: &ByteRecord, out: &mut Vec<u8>) -> Result<(), String> {
        let row = StringRecord::from_byte_record(row.clone()).map_err(|_| "the row is not UTF-8")?;
        let field = |i: usize| row.get(i).unwrap_or("").trim();
        out.extend_from_slice(br#"{"type":"Feature""#);
        if let Some(id) = self.id.map(field).filter(|id| !id.is_empty()) {
            out.extend_from_slice(br#","id":"#);
            json::string(out, id);
        }
        out.extend_from_slice(br#","geometry":"#);
        match self.position.map(|(lon, lat)| (field(lon), field(lat))) {
            None | Some(("", "")) => out.extend_from_slice(b"null"),
            Some((lon, lat)) => {
                let number = |t: &str| {
                    let n = t.parse().ok().filter(|n: &f64| n.is_finite());
                    n.ok_or_else(|| format!("'{t}' is not a coordinate"))
                };
                out.extend_from_slice(br#"{"type":"Point","coordinates":["#);
                json::number(out, number(lon)?);
                out.push(b',');
                json::number(out, number(lat)?);
                out.extend_from_slice(b"]}");
            }
        }
        out.extend_from_slice(br#","properties":{"#);
        let mut first = true;
        for (i, name, kind) in &self.properties {
            let text = field(*i);
            if text.is_empty() {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            json::string(out, name);
            out.push(b':');
            match kind.parse(text) {
                Ok(value) => json::value(out, &value),
                Err(_) => json::string(out, text),
            }
        }
        out.extend_from_slice(b"}}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(header: &[&str], names: &Names) -> Result<Columns, String> {
        let properties = [("Name".to_owned(), PropertyType::String), ("sog".to_owned(), PropertyType::Number)];
        Columns::find(&StringRecord::from(header.to_vec()), &properties, names)
    }

    fn feature(columns: &Columns, row: &[&str]) -> Result<String, String> {
        let mut out = Vec::new();
        columns.feature(&ByteRecord::from(row.to_vec()), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn columns_are_found_whatever_their_case() {
        let found = columns(&["\u{feff}ID", "LAT", "Longitude", "SOG", "name", "other"], &Names::default()).unwrap();
        assert_eq!(found.ignored, ["other"]);
        assert_eq!(
            feature(&found, &["7", "50.5", " 7 ", "1e1", "a\"b", "x"]).unwrap(),
            r#"{"type":"Feature","id":"7","geometry":{"type":"Point","coordinates":[7.0,50.5]},"properties":{"sog":10.0,"Name":"a\"b"}}"#
        );
        assert_eq!(
            feature(&found, &["", "", "", "fast"]).unwrap(),
            r#"{"type":"Feature","geometry":null,"properties":{"sog":"fast"}}"#
        );
        assert_eq!(feature(&found, &["7", "north", "7"]).unwrap_err(), "'north' is not a coordinate");
    }

    #[test]
    fn names_that_are_given_go_first() {
        let names = Names { lon: Some("a".into()), lat: Some("b".into()), id: Some("name".into()) };
        let found = columns(&["lon", "lat", "a", "b", "name"], &names).unwrap();
        assert_eq!((found.position, found.id), (Some((2, 3)), Some(4)));
        let names = Names { lon: Some("z".into()), ..Names::default() };
        assert_eq!(columns(&["lon", "lat"], &names).unwrap_err(), "there is no column 'z'");
        assert!(columns(&["lon"], &Names::default()).is_err());
        let error = columns(&["lon;lat;name"], &Names::default()).unwrap_err();
        assert!(error.contains("'lon;lat;name'"), "{error}");
    }
}
