//! What a table that is there says of itself: the declaration of a feature type over it.

use super::connection::{Connection, parsed_at, text_at};
use super::existing;
use crate::delegate::DelegateError;
use crate::delegate::literal::text;
use crate::model::feature_type::GEOMETRY;
use crate::model::table::KeyType;
use crate::model::{Dimension, ExistingTable, FeatureType, GeometryColumn, Property, PropertyType};

/// Declares a type `collection` over a table or a view. `key`: the column of the ids, where it is not the primary key of one
/// column. Columns of types that the server does not have, and generated ones, are left alone; so are further geometries.
pub async fn describe(
    connection: &mut Connection,
    schema: &str,
    table: &str,
    collection: &str,
    key: Option<&str>,
) -> Result<FeatureType, DelegateError> {
    let named = format!("{schema}.{table}");
    let mismatch = |what: String| DelegateError::Mismatch(format!("table {named}: {what}"));
    let sql = format!(
        "SELECT a.attname, t.typname, a.attnotnull, a.attgenerated <> '', c.relkind, \
                COALESCE((SELECT i.indnkeyatts = 1 AND i.indkey[0] = a.attnum FROM pg_index i \
                          WHERE i.indrelid = c.oid AND i.indisprimary), false), \
                CASE WHEN t.typname = 'geometry' THEN postgis_typmod_type(a.atttypmod) END, \
                CASE WHEN t.typname = 'geometry' THEN postgis_typmod_srid(a.atttypmod) END \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         JOIN pg_type t ON t.oid = a.atttypid \
         WHERE n.nspname = {} AND c.relname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY a.attnum",
        text(schema),
        text(table)
    );
    let rows = connection.rows(sql).await?;
    let columns = rows.iter().map(Column::read).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = columns.first() else { return Err(mismatch("it is not there".into())) };
    let is_key = |c: &&Column| key.map_or(c.is_primary, |key| c.name == key);
    let key = columns.iter().find(is_key).ok_or_else(|| match key {
        Some(key) => mismatch(format!("it has no column '{key}'")),
        None => mismatch("it has no primary key of one column: name the column of the ids with --key".into()),
    })?;
    let key_type = key.key_type().ok_or_else(|| mismatch(format!("a key of type {} is not supported", key.kind)))?;
    let mut existing = ExistingTable {
        schema: schema.to_owned(),
        name: table.to_owned(),
        key: key.name.clone(),
        key_type,
        geometry: GEOMETRY.to_owned(),
        columns: Default::default(),
        read_only: matches!(first.relation.as_str(), "v" | "m"),
    };
    let mut geometry = None;
    if let Some(column) = columns.iter().find(|c| c.kind == "geometry") {
        existing.geometry.clone_from(&column.name);
        geometry = Some(geometry_of(connection, &existing, column).await?);
    }
    let mut properties: Vec<Property> = Vec::new();
    for column in columns.iter().filter(|c| c.name != key.name && !c.is_generated) {
        let Some(kind) = column.property_type() else { continue };
        let name = property_name(&column.name, |name| properties.iter().any(|p| p.name.eq_ignore_ascii_case(name)));
        if name != column.name {
            existing.columns.insert(name.clone(), column.name.clone());
        }
        properties.push(Property { name, kind, nullable: !column.not_null, index: false, title: None });
    }
    let declaration = serde_json::json!({
        "name": collection, "geometry": geometry, "properties": properties, "table": existing,
    });
    let declared: FeatureType =
        serde_json::from_value(declaration).map_err(|e| mismatch(format!("it cannot be declared: {e}")))?;
    declared.check_declaration().map_err(|e| mismatch(e.to_string()))?;
    existing::check(connection, &declared, &existing).await?;
    Ok(declared)
}

struct Column {
    name: String,
    /// The name of its type in PostgreSQL.
    kind: String,
    not_null: bool,
    is_generated: bool,
    relation: String,
    is_primary: bool,
    /// `PointZM`; `Geometry` where any may stand.
    geometry: String,
    srid: u32,
}

impl Column {
    fn read(row: &sqlx::postgres::PgRow) -> Result<Column, sqlx::Error> {
        let text = |n| text_at(row, n).map(|t| t.unwrap_or_default().to_owned());
        let is = |n| text_at(row, n).map(|t| t == Some("t"));
        Ok(Column {
            name: text(0)?,
            kind: text(1)?,
            not_null: is(2)?,
            is_generated: is(3)?,
            relation: text(4)?,
            is_primary: is(5)?,
            geometry: text(6)?,
            srid: text(7)?.parse().unwrap_or(0),
        })
    }

    fn key_type(&self) -> Option<KeyType> {
        Some(match self.kind.as_str() {
            "text" | "varchar" => KeyType::Text,
            "int2" | "int4" | "int8" => KeyType::Integer,
            "uuid" => KeyType::Uuid,
            _ => return None,
        })
    }

    fn property_type(&self) -> Option<PropertyType> {
        Some(match self.kind.as_str() {
            "text" | "varchar" | "bpchar" => PropertyType::String,
            "int2" | "int4" => PropertyType::Int32,
            "int8" => PropertyType::Int64,
            "float4" | "float8" | "numeric" => PropertyType::Number,
            "bool" => PropertyType::Boolean,
            "date" => PropertyType::Date,
            "timestamp" | "timestamptz" => PropertyType::DateTime,
            "uuid" => PropertyType::Uuid,
            "json" | "jsonb" => PropertyType::Json,
            "bytea" => PropertyType::Bytes,
            _ => return None,
        })
    }
}

/// A column without a declared SRID has that of its first geometry.
async fn geometry_of(
    connection: &mut Connection,
    table: &ExistingTable,
    column: &Column,
) -> Result<GeometryColumn, DelegateError> {
    let mismatch = |what: String| DelegateError::Mismatch(format!("column '{}': {what}", column.name));
    let (kind, dimension) = match column.geometry.as_str() {
        g if g.ends_with("ZM") => (&g[..g.len() - 2], Dimension::XYZM),
        g if g.ends_with('Z') => (&g[..g.len() - 1], Dimension::XYZ),
        g if g.ends_with('M') => (&g[..g.len() - 1], Dimension::XYM),
        g => (g, Dimension::XY),
    };
    let kind = serde_json::from_value(kind.into()).map_err(|_| mismatch(format!("{kind} is no simple feature")))?;
    let mut epsg = column.srid;
    if epsg == 0 {
        let quoted = crate::delegate::sql::quoted(&column.name);
        let sql = format!("SELECT ST_SRID({quoted}) FROM {} WHERE {quoted} IS NOT NULL LIMIT 1", existing::name(table));
        let rows = connection.rows(sql).await?;
        epsg = rows.first().map(|row| parsed_at(row, 0)).transpose()?.unwrap_or(0);
    }
    if epsg == 0 {
        return Err(mismatch("it has no SRID: give it one (UpdateGeometrySRID)".into()));
    }
    Ok(GeometryColumn { kind, epsg, dimension, nullable: !column.not_null })
}

/// A name that a property may have, and that no other has.
fn property_name(column: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut name: String = column.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    let lower = name.to_ascii_lowercase();
    if matches!(lower.as_str(), "id" | "fid" | GEOMETRY) || lower.starts_with("alluvium_") {
        name.insert(0, '_');
    }
    while is_taken(&name) {
        name.push('_');
    }
    name
}
