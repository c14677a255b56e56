//! The filter's other meaning: as much of it as SQL can say, with the order and the cursor of a scan.
//!
//! It owns the text and the bind values, in two dialects; running them is the delegates' business.
//! Invariant: what is written selects every row that the filter selects in memory ([`crate::query::evaluate`]), and
//! [`Meaning::Exact`] says that its truth, the unknown included, is that of memory. Only exact parts are negated.

use std::fmt::Write;

use super::literal::literal;
use crate::model::table::KeyType;
use crate::model::{FeatureId, FeatureType, GeometryKind, Offset, PropertyType, Rect, Value};
use crate::query::filter::{LikePattern, LikeToken};
use crate::query::{CompareOp, Cursor, Filter, Operand, SortKey};

/// The column with the version of a row: see [`stored_version`].
pub const VERSION: &str = "alluvium_version";

/// How a row's version stands in its column. 0, the column's default, is that of a row which another tool wrote; so the first
/// offset of a log is -1. Comparing it with an offset is right as it is, for whether it may be overwritten.
pub fn stored_version(version: Offset) -> i64 {
    if version == 0 { -1 } else { version as i64 }
}

/// The version of a row whose column has this; another tool may have written anything.
pub fn version_of(stored: i64) -> Option<Offset> {
    match stored {
        -1 => Some(0),
        0 => None,
        n => n.try_into().ok(),
    }
}

/// In PostGIS, of a table of others: the key in its own type.
pub const KEY: &str = "alluvium_key";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A GeoPackage, with its R-tree tables and `ST_MinX` and its like.
    Sqlite,
    /// PostGIS.
    Postgres,
}

/// How what was written relates to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Exact,
    /// It selects more.
    Superset,
}

impl Meaning {
    fn and(self, other: Meaning) -> Meaning {
        if self == Meaning::Exact { other } else { self }
    }
}

/// A value for a placeholder, by the type that its column has.
#[derive(Clone, Debug, PartialEq)]
pub enum Bind {
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Instant(i64),
    Uuid([u8; 16]),
    Json(String),
    Bytes(Vec<u8>),
    Ids(Vec<FeatureId>),
}

/// Longer patterns are left to memory; SQLite refuses them.
const LONGEST_PATTERN: usize = 10_000;

/// Every integer up to here is a double of its own, so that integers compare with such a double as their doubles do.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// A name as an identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes SQL over the table of one feature type.
pub struct SqlWriter<'a> {
    dialect: Dialect,
    feature_type: &'a FeatureType,
    pub sql: String,
    pub binds: Vec<Bind>,
}

/// One side of a comparison.
enum Term {
    Null,
    Column {
        sql: String,
        kind: PropertyType,
    },
    Literal(Value),
    /// What only memory computes.
    Computed,
}

/// A literal, made ready for a column.
enum Coerced {
    Bind(Bind),
    /// The types do not compare: unknown.
    Never,
    /// SQL would compare them in a way of its own.
    LeftOut,
}

impl<'a> SqlWriter<'a> {
    /// `sql` is what stands before, without placeholders.
    pub fn new(dialect: Dialect, feature_type: &'a FeatureType, sql: impl Into<String>) -> SqlWriter<'a> {
        SqlWriter { dialect, feature_type, sql: sql.into(), binds: Vec::new() }
    }

    /// A boolean expression.
    pub fn filter(&mut self, filter: &Filter) -> Meaning {
        match filter {
            Filter::All => self.exact("TRUE"),
            Filter::And(all) => self.joined(all, " AND ", "TRUE"),
            Filter::Or(any) => self.joined(any, " OR ", "FALSE"),
            Filter::Not(inner) => self.not(inner),
            Filter::Ids(ids) => {
                self.ids(&ids.list);
                Meaning::Exact
            }
            Filter::Compare { op, left, right, match_case } => self.compare(*op, left, right, *match_case),
            Filter::Between { value, low, high } => self.between(value, low, high),
            Filter::Like { value, pattern, match_case } => self.like(value, pattern, *match_case),
            Filter::IsNull(operand) => self.is_null(operand),
            Filter::Bbox(rect) => self.bbox(rect),
            Filter::ForeignBox(_) | Filter::Spatial { .. } | Filter::Near(_) => match filter.bounds() {
                Some(bounds) => {
                    self.bbox(&bounds);
                    Meaning::Superset
                }
                None => self.left_out(),
            },
        }
    }

    /// A boolean expression: true of what comes after the cursor, in the order of [`SqlWriter::order_by`].
    pub fn after(&mut self, cursor: &Cursor, sort: &[SortKey]) {
        let keys: Vec<(&SortKey, &Value)> = sort.iter().zip(&cursor.values).collect();
        // Lets an index on the first key find the place.
        if let Some((key, value)) = keys.first()
            && !value.is_null()
            && self.feature_type.properties.get(key.property).is_some_and(|p| !p.nullable)
        {
            self.sort_term(key, if key.descending { "<=" } else { ">=" }, value);
            self.sql.push_str(" AND ");
        }
        self.sql.push('(');
        for (i, (key, value)) in keys.iter().enumerate() {
            // Nothing comes after a null but by the keys that follow.
            if value.is_null() {
                continue;
            }
            self.all_equal(&keys[..i]);
            self.sql.push('(');
            self.sort_term(key, if key.descending { "<" } else { ">" }, value);
            let column = self.sort_column(key.property);
            let _ = write!(self.sql, " OR {column} IS NULL)) OR ");
        }
        self.all_equal(&keys);
        let id = self.id_column();
        let _ = write!(self.sql, "{id} > ");
        self.bind(Bind::Text(cursor.id.to_string()));
        self.sql.push_str("))");
    }

    /// What follows `ORDER BY`: the keys, nulls last, then the bytes of the id.
    pub fn order_by(&mut self, sort: &[SortKey]) {
        for key in sort {
            let column = self.sort_column(key.property);
            let _ = write!(self.sql, "{column} {} NULLS LAST, ", if key.descending { "DESC" } else { "ASC" });
        }
        let id = self.id_column();
        self.sql.push_str(&id);
    }

    fn all_equal(&mut self, keys: &[(&SortKey, &Value)]) {
        self.sql.push('(');
        for (key, value) in keys {
            if value.is_null() {
                let column = self.sort_column(key.property);
                let _ = write!(self.sql, "{column} IS NULL");
            } else {
                self.sort_term(key, "=", value);
            }
            self.sql.push_str(" AND ");
        }
    }

    fn sort_term(&mut self, key: &SortKey, op: &str, value: &Value) {
        let column = self.sort_column(key.property);
        let _ = write!(self.sql, "{column} {op} ");
        self.bind(own_bind(value));
    }

    /// A column in the order of [`Value::sort_cmp`].
    fn sort_column(&self, slot: usize) -> String {
        let Some(property) = self.feature_type.properties.get(slot) else { return "NULL".into() };
        let column = quoted(&property.name);
        match (self.dialect, property.kind) {
            (Dialect::Postgres, PropertyType::String) => format!("{column} COLLATE \"C\""),
            (Dialect::Postgres, PropertyType::Json) => format!("({column}::text) COLLATE \"C\""),
            _ => column,
        }
    }

    fn id_column(&self) -> String {
        match self.dialect {
            Dialect::Sqlite => "\"id\"".into(),
            Dialect::Postgres => "\"id\" COLLATE \"C\"".into(),
        }
    }

    /// Puts a placeholder for a value; in PostgreSQL, whose cursors take none, the value itself.
    pub fn bind(&mut self, bind: Bind) {
        match self.dialect {
            Dialect::Sqlite => {
                let _ = write!(self.sql, "?{}", self.binds.len() + 1);
                self.binds.push(bind);
            }
            Dialect::Postgres => self.sql.push_str(&literal(&bind)),
        }
    }

    fn exact(&mut self, sql: &str) -> Meaning {
        self.sql.push_str(sql);
        Meaning::Exact
    }

    fn unknown(&mut self) -> Meaning {
        match self.dialect {
            Dialect::Sqlite => self.exact("NULL"),
            Dialect::Postgres => self.exact("NULL::boolean"),
        }
    }

    fn left_out(&mut self) -> Meaning {
        self.sql.push_str("TRUE");
        Meaning::Superset
    }

    fn joined(&mut self, parts: &[Filter], joint: &str, when_empty: &str) -> Meaning {
        if parts.is_empty() {
            return self.exact(when_empty);
        }
        let mut meaning = Meaning::Exact;
        for (i, part) in parts.iter().enumerate() {
            self.sql.push_str(if i == 0 { "(" } else { joint });
            meaning = self.filter(part).and(meaning);
        }
        self.sql.push(')');
        meaning
    }

    fn not(&mut self, inner: &Filter) -> Meaning {
        let (sql, binds) = (self.sql.len(), self.binds.len());
        self.sql.push_str("(NOT ");
        let meaning = self.filter(inner);
        self.sql.push(')');
        if meaning == Meaning::Superset {
            // What lies outside a superset says nothing.
            self.sql.truncate(sql);
            self.binds.truncate(binds);
            return self.left_out();
        }
        meaning
    }

    fn ids(&mut self, ids: &[FeatureId]) {
        if let Some(table) = &self.feature_type.table {
            return self.keys(table.key_type, ids);
        }
        let (before, after) = match self.dialect {
            Dialect::Sqlite => ("\"id\" IN (SELECT value FROM json_each(", "))"),
            Dialect::Postgres => ("\"id\" = ANY(", ")"),
        };
        self.sql.push_str(before);
        self.bind(Bind::Ids(ids.to_vec()));
        self.sql.push_str(after);
    }

    /// The index of a table of others is on its key as it is. What cannot be a key there is nobody's id.
    fn keys(&mut self, key_type: KeyType, ids: &[FeatureId]) {
        let array = match key_type {
            KeyType::Text => "",
            KeyType::Integer => "::int8[]",
            KeyType::Uuid => "::uuid[]",
        };
        let keys = ids.iter().filter(|id| key_type.check(id).is_ok()).cloned().collect();
        let _ = write!(self.sql, "{KEY} = ANY((");
        self.bind(Bind::Ids(keys));
        let _ = write!(self.sql, "){array})");
    }

    fn term(&self, operand: &Operand) -> Term {
        match operand {
            Operand::Id => Term::Column { sql: self.id_column(), kind: PropertyType::String },
            Operand::Property(slot) => match self.feature_type.properties.get(*slot) {
                Some(p) => Term::Column { sql: self.sort_column(*slot), kind: p.kind },
                None => Term::Null,
            },
            Operand::Literal(Value::Null) | Operand::Geometry => Term::Null,
            Operand::Literal(value) => Term::Literal(value.clone()),
            Operand::Call { .. } => Term::Computed,
        }
    }

    fn compare(&mut self, op: CompareOp, left: &Operand, right: &Operand, match_case: bool) -> Meaning {
        match (self.term(left), self.term(right)) {
            (Term::Null, _) | (_, Term::Null) => self.unknown(),
            (Term::Computed, _) | (_, Term::Computed) => self.left_out(),
            (Term::Column { sql, kind }, Term::Literal(v)) => self.compare_literal(&sql, kind, op, &v, match_case),
            (Term::Literal(v), Term::Column { sql, kind }) => {
                self.compare_literal(&sql, kind, flipped(op), &v, match_case)
            }
            (Term::Column { sql: a, kind: x }, Term::Column { sql: b, kind: y }) => {
                if x != y || x == PropertyType::Json || (x == PropertyType::String && !match_case) {
                    return self.left_out();
                }
                let _ = write!(self.sql, "{a} {} {b}", sql_op(op));
                Meaning::Exact
            }
            (Term::Literal(_), Term::Literal(_)) => self.left_out(),
        }
    }

    fn compare_literal(
        &mut self,
        column: &str,
        kind: PropertyType,
        op: CompareOp,
        value: &Value,
        match_case: bool,
    ) -> Meaning {
        if kind == PropertyType::String && !match_case {
            return self.left_out();
        }
        match coerced(value, kind) {
            Coerced::Never => self.unknown(),
            Coerced::LeftOut => self.left_out(),
            Coerced::Bind(bind) => {
                let _ = write!(self.sql, "{column} {} ", sql_op(op));
                self.bind(bind);
                Meaning::Exact
            }
        }
    }

    fn between(&mut self, value: &Operand, low: &Operand, high: &Operand) -> Meaning {
        // Other forms differ from memory in when they are unknown.
        let (Term::Column { sql, kind }, Term::Literal(low), Term::Literal(high)) =
            (self.term(value), self.term(low), self.term(high))
        else {
            return self.left_out();
        };
        let (Coerced::Bind(low), Coerced::Bind(high)) = (coerced(&low, kind), coerced(&high, kind)) else {
            return self.left_out();
        };
        let _ = write!(self.sql, "({sql} BETWEEN ");
        self.bind(low);
        self.sql.push_str(" AND ");
        self.bind(high);
        self.sql.push(')');
        Meaning::Exact
    }

    fn like(&mut self, value: &Operand, pattern: &LikePattern, match_case: bool) -> Meaning {
        let sql = match self.term(value) {
            Term::Null => return self.unknown(),
            Term::Literal(_) | Term::Computed => return self.left_out(),
            Term::Column { kind, .. } if kind != PropertyType::String => return self.unknown(),
            Term::Column { sql, .. } => sql,
        };
        if !match_case || pattern.0.len() > LONGEST_PATTERN / 4 {
            return self.left_out();
        }
        let (op, pattern, escape) = match self.dialect {
            Dialect::Sqlite => ("GLOB", glob(pattern), ""),
            Dialect::Postgres => ("LIKE", backslashed(pattern), " ESCAPE '\\'"),
        };
        let _ = write!(self.sql, "({sql} {op} ");
        self.bind(Bind::Text(pattern));
        let _ = write!(self.sql, "{escape})");
        Meaning::Exact
    }

    fn is_null(&mut self, operand: &Operand) -> Meaning {
        match (operand, self.term(operand)) {
            (Operand::Geometry, _) if self.feature_type.geometry.is_some() => self.exact("\"geom\" IS NULL"),
            (_, Term::Null) => self.exact("TRUE"),
            (_, Term::Literal(_)) => self.exact("FALSE"),
            (_, Term::Computed) => self.left_out(),
            (_, Term::Column { sql, .. }) => {
                let _ = write!(self.sql, "{sql} IS NULL");
                Meaning::Exact
            }
        }
    }

    /// The index narrows by boxes of single precision; the envelope in doubles narrows further, and of a point that is all.
    fn bbox(&mut self, r: &Rect) -> Meaning {
        let Some(column) = &self.feature_type.geometry else { return self.exact("FALSE") };
        let kind = column.kind;
        match self.dialect {
            Dialect::Sqlite => self.sqlite_bbox(r),
            Dialect::Postgres if self.feature_type.keeps_tails() => {
                self.sql.push('(');
                self.postgres_bbox(r, column.epsg);
                self.postgres_tails(r, column.epsg);
            }
            Dialect::Postgres => self.postgres_bbox(r, column.epsg),
        }
        if kind == GeometryKind::Point { Meaning::Exact } else { Meaning::Superset }
    }

    fn sqlite_bbox(&mut self, r: &Rect) {
        let index = quoted(&format!("rtree_{}_geom", self.feature_type.name));
        let _ = write!(self.sql, "(\"fid\" IN (SELECT \"id\" FROM {index} WHERE ");
        self.overlaps(r, ["\"minx\"", "\"maxx\"", "\"miny\"", "\"maxy\""]);
        if self.feature_type.keeps_tails() {
            // The index knows of fixes that the line has not.
            return self.sql.push_str("))");
        }
        self.sql.push_str(") AND ");
        let of = |edge: &str| format!("ST_{edge}(\"geom\")");
        self.overlaps(r, [&of("MinX"), &of("MaxX"), &of("MinY"), &of("MaxY")]);
        self.sql.push(')');
    }

    fn postgres_bbox(&mut self, r: &Rect, epsg: u32) {
        self.sql.push_str("(\"geom\" IS NOT NULL AND \"geom\" && ");
        self.envelope(r, epsg);
        self.sql.push_str(" AND ");
        let of = |edge: &str| format!("ST_{edge}(\"geom\")");
        self.overlaps(r, [&of("XMin"), &of("XMax"), &of("YMin"), &of("YMax")]);
        self.sql.push(')');
    }

    /// Tracks with fixes there that their line has not. An array, which the index on the ids takes beside the one on the lines.
    fn postgres_tails(&mut self, r: &Rect, epsg: u32) {
        self.sql.push_str(" OR \"id\" = ANY(ARRAY(SELECT k.id FROM alluvium.tail k WHERE k.feature_type = ");
        self.bind(Bind::Text(self.feature_type.name.clone()));
        self.sql.push_str(" AND k.fixes && ");
        self.envelope(r, epsg);
        self.sql.push_str(")))");
    }

    fn envelope(&mut self, r: &Rect, epsg: u32) {
        self.sql.push_str("ST_MakeEnvelope(");
        for edge in [r.min_x, r.min_y, r.max_x, r.max_y] {
            self.bind(Bind::Number(edge));
            self.sql.push_str(", ");
        }
        let _ = write!(self.sql, "{epsg})");
    }

    fn overlaps(&mut self, r: &Rect, [min_x, max_x, min_y, max_y]: [&str; 4]) {
        for (i, (edge, op, value)) in
            [(min_x, "<=", r.max_x), (max_x, ">=", r.min_x), (min_y, "<=", r.max_y), (max_y, ">=", r.min_y)]
                .into_iter()
                .enumerate()
        {
            let _ = write!(self.sql, "{}{edge} {op} ", if i > 0 { " AND " } else { "" });
            self.bind(Bind::Number(value));
        }
    }
}

/// A literal for a column of `kind`, such that SQL compares it as [`Value::compare`] does.
fn coerced(value: &Value, kind: PropertyType) -> Coerced {
    use PropertyType as T;
    let bind = match (kind, value) {
        (_, Value::Number(x)) if !x.is_finite() => return Coerced::LeftOut,
        (T::Int32 | T::Int64, Value::Number(x)) if x.abs() >= EXACT_INTEGERS => return Coerced::LeftOut,
        (T::Int32 | T::Int64 | T::Number, Value::Number(x)) => Bind::Number(*x),
        (T::Number, Value::Int(n)) => Bind::Number(*n as f64),
        (T::DateTime, Value::Date(days)) => Bind::Instant(i64::from(*days) * 86_400_000_000),
        (T::Date, Value::DateTime(_)) | (T::Json, Value::Json(_)) => return Coerced::LeftOut,
        (T::Int32 | T::Int64, Value::Int(_))
        | (T::Boolean, Value::Bool(_))
        | (T::String, Value::String(_))
        | (T::Date, Value::Date(_))
        | (T::DateTime, Value::DateTime(_))
        | (T::Uuid, Value::Uuid(_))
        | (T::Bytes, Value::Bytes(_)) => own_bind(value),
        _ => return Coerced::Never,
    };
    Coerced::Bind(bind)
}

/// A value for a column of its own type. Not of `Null`, which no caller binds.
fn own_bind(value: &Value) -> Bind {
    match value {
        Value::Null => Bind::Text(String::new()),
        Value::Bool(b) => Bind::Bool(*b),
        Value::Int(n) => Bind::Int(*n),
        Value::Number(x) => Bind::Number(*x),
        Value::String(s) => Bind::Text(s.to_string()),
        Value::Date(days) => Bind::Date(*days),
        Value::DateTime(micros) => Bind::Instant(*micros),
        Value::Uuid(u) => Bind::Uuid(*u),
        Value::Json(j) => Bind::Json(j.to_string()),
        Value::Bytes(b) => Bind::Bytes(b.to_vec()),
    }
}

fn sql_op(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Equal => "=",
        CompareOp::NotEqual => "<>",
        CompareOp::Less => "<",
        CompareOp::LessOrEqual => "<=",
        CompareOp::Greater => ">",
        CompareOp::GreaterOrEqual => ">=",
    }
}

/// `a op b` as `b op a`.
fn flipped(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
        same => same,
    }
}

/// As SQLite's `GLOB` has it, in which a character in brackets is itself.
fn glob(pattern: &LikePattern) -> String {
    let mut text = String::new();
    for token in &pattern.0 {
        match token {
            LikeToken::Any => text.push('*'),
            LikeToken::One => text.push('?'),
            LikeToken::Char(c @ ('*' | '?' | '[')) => text.extend(['[', *c, ']']),
            LikeToken::Char(c) => text.push(*c),
        }
    }
    text
}

/// As `LIKE` has it, with the backslash as the escape.
fn backslashed(pattern: &LikePattern) -> String {
    let mut text = String::new();
    for token in &pattern.0 {
        match token {
            LikeToken::Any => text.push('%'),
            LikeToken::One => text.push('_'),
            LikeToken::Char(c @ ('%' | '_' | '\\')) => text.extend(['\\', *c]),
            LikeToken::Char(c) => text.push(*c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ships() -> FeatureType {
        serde_json::from_str(
            r#"{"name":"ships","geometry":{"type":"Point"},"properties":[
                {"name":"name","type":"string"},{"name":"speed","type":"number","nullable":false}]}"#,
        )
        .unwrap()
    }

    fn written(dialect: Dialect, filter: &Filter) -> (String, usize, Meaning) {
        let ships = ships();
        let mut w = SqlWriter::new(dialect, &ships, "");
        let meaning = w.filter(filter);
        (w.sql, w.binds.len(), meaning)
    }

    fn faster_than(speed: f64) -> Filter {
        Filter::Compare {
            op: CompareOp::Less,
            left: Operand::Literal(Value::Number(speed)),
            right: Operand::Property(1),
            match_case: true,
        }
    }

    fn named(pattern: &str, match_case: bool) -> Filter {
        let pattern = LikePattern::parse(pattern, "*", "?", "\\");
        Filter::Like { value: Operand::Property(0), pattern, match_case }
    }

    #[test]
    fn literals_stand_on_the_right() {
        assert_eq!(written(Dialect::Sqlite, &faster_than(3.0)), ("\"speed\" > ?1".into(), 1, Meaning::Exact));
        assert_eq!(written(Dialect::Postgres, &faster_than(3.0)).0, "\"speed\" > '3.0'::float8");
    }

    #[test]
    fn only_exact_parts_are_negated() {
        let vague = Filter::And(vec![faster_than(3.0), named("a*", false)]);
        assert_eq!(written(Dialect::Sqlite, &vague).2, Meaning::Superset);
        let not = Filter::Not(Box::new(vague));
        assert_eq!(written(Dialect::Sqlite, &not), ("TRUE".into(), 0, Meaning::Superset));
        let not = Filter::Not(Box::new(faster_than(3.0)));
        assert_eq!(written(Dialect::Sqlite, &not), ("(NOT \"speed\" > ?1)".into(), 1, Meaning::Exact));
    }

    #[test]
    fn patterns_keep_their_literal_characters() {
        let pattern = LikePattern::parse("a\\*_%[?*", "*", "?", "\\");
        assert_eq!(glob(&pattern), "a[*]_%[[]?*");
        assert_eq!(backslashed(&pattern), "a*\\_\\%[_%");
    }
}
