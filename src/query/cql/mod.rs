//! Filters as text and as JSON: CQL2 (OGC 21-065) in both encodings and, for the clients of GeoServer, its ECQL. What differs is
//! spelt differently (`S_INTERSECTS` and `INTERSECTS`, `T_AFTER(seen, …)` and `seen AFTER …`), so all are one language here.
//!
//! [`parse`] and [`json`] make an [`Expression`] of names and literals, [`bind`] a [`Filter`] of it: it resolves the names in a
//! feature type and gives literals the types of what they are held against. Not there of CQL2: predicates on arrays, as no
//! property is an array.

mod bind;
mod json;
mod lexer;
mod parse;

use super::filter::Filter;
use crate::model::crs::{Crs, CrsRef};
use crate::model::value::parse_instant;
use crate::model::{FeatureType, Geometry};

/// How deep parentheses, objects and the like may nest.
const MAX_DEPTH: usize = 50;

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

/// A filter that has been read, whatever it is about. Two are equal that say the same, in whichever encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Expr);

impl Expression {
    /// Reads CQL2 text or ECQL.
    pub fn from_text(text: &str) -> Result<Expression, CqlError> {
        parse::parse(text).map(Expression)
    }

    /// Reads CQL2 JSON.
    pub fn from_json(text: &str) -> Result<Expression, CqlError> {
        json::parse(text).map(Expression)
    }

    /// What it means for a feature type.
    pub fn bind(&self, context: &Context<'_>) -> Result<Filter, CqlError> {
        context.predicate(&self.0)
    }
}

/// A part of a filter, and the character at which it begins.
#[derive(Clone, Debug)]
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
    /// In JSON of any length, in text not of one.
    List(Vec<Expr>),
}

impl PartialEq for Expr {
    /// Wherever they stand; numbers and instants by their value, whatever their digits.
    fn eq(&self, other: &Expr) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Number(a), Kind::Number(b)) => a == b || a.parse::<f64>().is_ok_and(|a| b.parse() == Ok(a)),
            (Kind::Text(a), Kind::Text(b)) => a == b || parse_instant(a).is_some_and(|t| parse_instant(b) == Some(t)),
            (a, b) => a == b,
        }
    }
}

impl Expr {
    fn error(&self, what: impl Into<String>) -> CqlError {
        CqlError { at: self.at, what: what.into() }
    }
}

fn call(at: usize, name: &str, all: Vec<Expr>) -> Expr {
    Expr { at, kind: Kind::Call(name.into(), all) }
}

/// A box out of four numbers, or of six, of which the heights are not looked at.
fn edges_of(numbers: &[f64]) -> Option<[f64; 4]> {
    match *numbers {
        [west, south, east, north] | [west, south, _, east, north, _] => Some([west, south, east, north]),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
