//! GeoPackage 1.3 (OGC 12-128r17): what every file and every table of features in one has, and files to be sent.
//!
//! Owns tables, columns, values and geometries as the standard has them; the embedded delegate's file is one of these, and its
//! bookkeeping is its own.

pub mod blob;
pub mod value;
mod write;

use rusqlite::{Connection, params};

use crate::model::GeometryColumn;
pub use write::GeoPackage;

/// 'GPKG', in the file's header.
pub const APPLICATION_ID: i64 = 0x4750_4b47;
/// GeoPackage 1.3.0.
const USER_VERSION: i64 = 10_300;

pub const MEDIA_TYPE: &str = "application/geopackage+sqlite3";

/// Says in the header of an empty file what it is.
pub fn declare(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {USER_VERSION};"))
}

/// Makes the tables that every file has, where they are not there.
pub fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(include_str!("geopackage.sql"))
}

/// Enters a table into the contents and gives it its R-tree, over what is in it and what comes. It has the columns `fid` and,
/// with a geometry, `geom`.
pub fn enter(
    connection: &Connection,
    table: &str,
    geometry: Option<&GeometryColumn>,
    description: &str,
) -> rusqlite::Result<()> {
    let data_type = if geometry.is_some() { "features" } else { "attributes" };
    let srs_id = geometry.map(|g| g.epsg);
    if let Some(epsg) = srs_id {
        connection.execute(
            "INSERT OR IGNORE INTO gpkg_spatial_ref_sys VALUES ('EPSG:' || ?1, ?1, 'EPSG', ?1, 'undefined', NULL)",
            [epsg],
        )?;
    }
    connection.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id) VALUES (?1, ?2, ?1, ?3, ?4)",
        params![table, data_type, description, srs_id],
    )?;
    let Some(g) = geometry else { return Ok(()) };
    connection.execute(
        "INSERT INTO gpkg_geometry_columns VALUES (?1, 'geom', ?2, ?3, ?4, ?5)",
        params![table, g.kind.name().to_uppercase(), g.epsg, g.dimension.has_z(), g.dimension.has_m()],
    )?;
    connection.execute(
        "INSERT INTO gpkg_extensions VALUES (?1, 'geom', 'gpkg_rtree_index',
         'http://www.geopackage.org/spec120/#extension_rtree', 'write-only')",
        [table],
    )?;
    connection.execute_batch(&include_str!("rtree.sql").replace("{rtree}", &rtree(table)).replace("{table}", table))
}

/// The R-tree of a feature table.
pub fn rtree(table: &str) -> String {
    format!("rtree_{table}_geom")
}
