//! Features into a GeoPackage to be sent: a table for each type, with the features' ids in the column `id`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, Value as SqlValue};
use rusqlite::{Connection, params_from_iter};

use super::value::{column_type, encode};
use super::{blob, declare, enter, prepare, rtree};
use crate::format::file::{Content, FeatureFile, FileError, temporary_path};
use crate::format::gml::{Selection, gml_id};
use crate::format::placed::Placed;
use crate::model::crs::Crs;
use crate::model::{Feature, FeatureType, GeometryColumn, PropertyType};

/// A file that is being made; `None`: not begun.
#[derive(Default)]
pub struct GeoPackage(Option<Making>);

struct Making {
    connection: Connection,
    /// Goes after the connection.
    file: Temporary,
    table: Option<Table>,
}

/// The table that rows go into.
struct Table {
    name: String,
    description: String,
    properties: Vec<(usize, PropertyType)>,
    geometry: Option<GeometryColumn>,
    placed: Placed,
    insert: String,
}

impl From<rusqlite::Error> for FileError {
    fn from(e: rusqlite::Error) -> FileError {
        FileError::Io(io::Error::other(e))
    }
}

impl FeatureFile for GeoPackage {
    fn begin(&mut self, ft: &FeatureType, crs: Crs, selection: &Selection) -> Result<(), FileError> {
        if ["sqlite_", "gpkg", "rtree_"].iter().any(|prefix| ft.name.starts_with(prefix)) {
            return Err(FileError::Format(format!("a GeoPackage keeps the name '{}' for itself", ft.name)));
        }
        let making = match &mut self.0 {
            Some(making) => making,
            none => none.insert(Making::new()?),
        };
        making.end()?;
        let table = Table::new(ft, crs, selection);
        making.connection.execute_batch(&table.create(ft))?;
        making.table = Some(table);
        Ok(())
    }

    fn write(&mut self, feature: &Feature) -> Result<(), FileError> {
        match &self.0 {
            Some(Making { connection, table: Some(table), .. }) => table.write(connection, feature),
            _ => Ok(()),
        }
    }

    fn finish(self: Box<Self>) -> Result<Content, FileError> {
        let mut making = match self.0 {
            Some(making) => making,
            None => Making::new()?,
        };
        making.end()?;
        making.connection.execute_batch("COMMIT")?;
        making.connection.close().map_err(|(_, e)| e)?;
        Ok(Content::File(File::open(making.file.path())?))
    }
}

impl Making {
    fn new() -> Result<Making, FileError> {
        let file = Temporary(temporary_path());
        let connection = Connection::open(file.path())?;
        blob::register_functions(&connection)?;
        // A file that is not whole is thrown away: there is nothing to go back to.
        connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
        declare(&connection)?;
        connection.execute_batch("BEGIN")?;
        prepare(&connection)?;
        Ok(Making { connection, file, table: None })
    }

    /// Enters the table that is full now, which is faster than to keep its index while it fills.
    fn end(&mut self) -> Result<(), FileError> {
        let Some(table) = self.table.take() else { return Ok(()) };
        enter(&self.connection, &table.name, table.geometry.as_ref(), &table.description)?;
        if table.geometry.is_some() {
            self.connection.execute(
                &format!(
                    "UPDATE gpkg_contents SET (min_x, min_y, max_x, max_y) =
                     (SELECT min(minx), min(miny), max(maxx), max(maxy) FROM \"{}\") WHERE table_name = ?1",
                    rtree(&table.name)
                ),
                [&table.name],
            )?;
        }
        Ok(())
    }
}

impl Table {
    fn new(ft: &FeatureType, crs: Crs, selection: &Selection) -> Table {
        let placed = Placed::new(ft, crs, selection);
        let geometry = placed.column.map(|g| GeometryColumn { epsg: crs.epsg(), ..g });
        let places = vec!["?"; 1 + usize::from(geometry.is_some()) + selection.properties.len()].join(", ");
        let columns = columns(ft, geometry.is_some(), selection).join(", ");
        Table {
            name: ft.name.clone(),
            description: if ft.description.is_empty() { ft.title() } else { &ft.description }.to_owned(),
            properties: selection.properties.iter().map(|slot| (*slot, ft.properties[*slot].kind)).collect(),
            geometry,
            placed,
            insert: format!("INSERT INTO \"{}\" ({columns}) VALUES ({places})", ft.name),
        }
    }

    /// Names need no quoting inside quotes.
    fn create(&self, ft: &FeatureType) -> String {
        let mut columns =
            vec!["fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL".to_owned(), "id TEXT NOT NULL".to_owned()];
        columns.extend(self.geometry.map(|g| format!("geom {}", g.kind.name().to_uppercase())));
        columns.extend(
            self.properties
                .iter()
                .map(|(slot, kind)| format!("\"{}\" {}", ft.properties[*slot].name, column_type(*kind))),
        );
        format!("CREATE TABLE \"{}\" ({})", self.name, columns.join(", "))
    }

    fn write(&self, connection: &Connection, feature: &Feature) -> Result<(), FileError> {
        let owned = |value| ToSqlOutput::Owned(value);
        let mut values = vec![owned(SqlValue::Text(gml_id(&self.name, &feature.id).to_string()))];
        if let Some(g) = &self.geometry {
            let geometry = self.placed.geometry(feature)?;
            values.push(owned(
                geometry.map_or(SqlValue::Null, |geom| SqlValue::Blob(blob::encode(&geom, g.epsg as i32))),
            ));
        }
        for (slot, kind) in &self.properties {
            let value = encode(*kind, feature.value(*slot));
            values.push(value.map_err(|e| FileError::Format(format!("feature '{}': {e}", feature.id)))?);
        }
        connection.prepare_cached(&self.insert)?.execute(params_from_iter(values))?;
        Ok(())
    }
}

fn columns(ft: &FeatureType, geometry: bool, selection: &Selection) -> Vec<String> {
    let mut columns = vec!["id".to_owned()];
    columns.extend(geometry.then(|| "geom".to_owned()));
    columns.extend(selection.properties.iter().map(|slot| format!("\"{}\"", ft.properties[*slot].name)));
    columns
}

/// A file that is gone when this is dropped; who has it open reads on.
struct Temporary(PathBuf);

impl Temporary {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, file = %self.0.display(), "a temporary file could not be removed");
        }
    }
}
