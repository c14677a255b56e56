//! Filters as text: CQL2 (OGC 21-065) and, for the clients of GeoServer, its ECQL. What differs is spelt differently (`S_INTERSECTS`
//! and `INTERSECTS`, `T_AFTER(seen, …)` and `seen AFTER …`), so both are one language here.
//!
//! [`parse`] makes an expression of names and literals, [`bind`] a [`Filter`] of it: it resolves the names in a feature type and
//! gives literals the types of what they are held against. Not there of CQL2: arrays, `ACCENTI`, `DIV`, `%` and `^`.

mod bind;
mod lexer;
mod parse;

use super::filter::Filter;
use crate::model::crs::{Crs, CrsRef};
use crate::model::{FeatureType, Geometry};

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {what}")]
pub struct CqlError {
    /// The first is 1.
    pub at: usize,
    pub what: String,
}

/// What a filter is about.
pub struct Context<'a> {
    pub ft: &'a FeatureType,
    /// Of the filter's geometries, whose coordinates are in the order of its spelling.
    pub crs: CrsRef,
    /// The CRS of the features.
    pub target: Crs,
    /// Whether a name is one of the catalogue's types: an id of another type is an error.
    pub is_type: &'a dyn Fn(&str) -> bool,
}

/// Reads a filter.
pub fn filter(text: &str, context: &Context<'_>) -> Result<Filter, CqlError> {
    context.predicate(&parse::parse(text)?)
}

/// An expression, and the character at which it begins.
#[derive(Clone, Debug, PartialEq)]
struct Expr {
    at: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// An operator or function, in lower case.
    Call(String, Vec<Expr>),
    Property(String),
    /// A text, and what is written as one: instants, days, units.
    Text(String),
    Number(String),
    Bool(bool),
    Geometry(Geometry),
    /// `min x, min y, max x, max y`, as written.
    Box([f64; 4]),
    Period(Box<Expr>, Box<Expr>),
}

impl Expr {
    fn error(&self, what: impl Into<String>) -> CqlError {
        CqlError { at: self.at, what: what.into() }
    }
}

#[cfg(test)]
mod tests;
