//! Features into rows: the id, the geometry as well-known text, the properties.

use crate::format::gml::{Selection, gml_id, write_value};
use crate::format::placed::Shown;
use crate::format::wkt;
use crate::model::crs::CrsRef;
use crate::model::feature_type::GEOMETRY;
use crate::model::{Feature, FeatureType, GeometryError, Value};

/// Writes the rows of one type.
pub struct FeatureWriter {
    type_name: String,
    header: Vec<u8>,
    geometry: bool,
    properties: Vec<usize>,
    shown: Shown,
    swap: bool,
}

impl FeatureWriter {
    /// Features of `ft` with coordinates in `crs`.
    pub fn new(ft: &FeatureType, crs: &CrsRef, selection: &Selection) -> FeatureWriter {
        let geometry = selection.geometry && ft.geometry.is_some();
        let mut header = b"FID".to_vec();
        let names = selection.properties.iter().map(|slot| ft.properties[*slot].name.as_str());
        for name in geometry.then_some(GEOMETRY).into_iter().chain(names) {
            header.push(b',');
            field(&mut header, name);
        }
        header.extend_from_slice(b"\r\n");
        FeatureWriter {
            type_name: ft.name.clone(),
            header,
            geometry,
            properties: selection.properties.clone(),
            shown: Shown::new(ft, crs.crs),
            swap: crs.swap,
        }
    }

    /// The row of names.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Appends the row of `feature`. When its geometry has no place in the CRS asked for, nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>, feature: &Feature) -> Result<(), GeometryError> {
        let geometry = feature.geometry.as_ref().filter(|_| self.geometry);
        let geometry = geometry.map(|g| self.shown.geometry(g)).transpose()?;
        field(out, &gml_id(&self.type_name, &feature.id));
        if self.geometry {
            out.push(b',');
            if let Some(geometry) = geometry {
                // Its commas are not the row's.
                out.push(b'"');
                wkt::write(out, &geometry, self.swap);
                out.push(b'"');
            }
        }
        for slot in &self.properties {
            out.push(b',');
            match feature.value(*slot) {
                Value::String(s) | Value::Json(s) => field(out, s),
                value => write_value(out, value),
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// An empty text is written in quotes: without them it is no value.
fn field(out: &mut Vec<u8>, text: &str) {
    let plain = !text.is_empty()
        && !text.bytes().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n'))
        && text.trim().len() == text.len();
    if plain {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Geometry, PropertyType};

    #[test]
    fn rows_are_read_back_as_they_were() {
        let ft: FeatureType = serde_json::from_value(serde_json::json!({
            "name": "ships", "geometry": {"type": "Point"},
            "properties": [{"name": "name", "type": "string"}, {"name": "speed", "type": "number"}, {"name": "seen", "type": "date-time"}],
        }))
        .unwrap();
        let writer = FeatureWriter::new(&ft, &CrsRef::crs84(), &Selection::all(&ft));
        let mut out = writer.header().to_vec();
        let names = ["say \"ahoy\", twice\r\n", "", " Aurora"];
        for (i, name) in names.into_iter().enumerate() {
            let properties = vec![
                Value::String(name.into()),
                Value::Number(0.1),
                PropertyType::DateTime.parse("2026-01-02T03:04:05Z").unwrap(),
            ];
            let geometry = Geometry::point(24.5, 60.0).ok();
            writer.write(&mut out, &Feature { id: format!("{i}:").into(), geometry, properties }).unwrap();
        }
        let nothing = Feature { id: "9".into(), geometry: None, properties: vec![Value::Null; 3] };
        writer.write(&mut out, &nothing).unwrap();
        assert!(out.ends_with(b"\r\nships.9,,,,\r\n"), "{}", String::from_utf8_lossy(&out));

        let mut reader = ::csv::Reader::from_reader(out.as_slice());
        assert_eq!(reader.headers().unwrap(), &["FID", "geom", "name", "speed", "seen"][..]);
        let rows: Vec<::csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows[0], ["ships.0_x3A_", "POINT (24.5 60)", names[0], "0.1", "2026-01-02T03:04:05Z"][..]);
        assert_eq!(rows.iter().map(|r| &r[2]).collect::<Vec<_>>(), ["say \"ahoy\", twice\r\n", "", " Aurora", ""]);
    }
}
