//! Filter Encoding: FES 2.0 and Filter 1.1 and 1.0, read from XML into the one AST.
//!
//! Everything is resolved by local name, in whatever namespace: clients mix those of the versions. Names become property ids
//! and literals values of the property's type here, so that what comes out can be evaluated without failing. What is not
//! understood is refused by name, never passed over.

mod comparison;
mod join;
mod reference;
mod spatial;
mod temporal;

pub(super) use comparison::{class, value_of};
pub use join::{Joined, Sides, parse_join, unaliased, unaliased_filter};
pub use reference::{Reference, resolve_reference, sort_keys, sort_keys_of_text};
pub(super) use spatial::measured;

use super::filter::Filter;
use crate::format::gml::{Axes, GmlError, resolve_rid};
use crate::format::xml::Element;
use crate::model::FeatureType;

/// Of the exception codes of FES 2.0 and WFS 2.0, those that a filter can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidParameterValue,
    OperationParsingFailed,
    OperationNotSupported,
    OperationProcessingFailed,
}

/// Why a filter cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FesError {
    pub code: Code,
    /// The element or property at fault.
    pub locator: String,
    pub message: String,
}

impl FesError {
    fn new(code: Code, locator: impl Into<String>, message: impl Into<String>) -> FesError {
        FesError { code, locator: locator.into(), message: message.into() }
    }

    /// The element is not what its place asks for.
    fn parsing(e: &Element, what: impl std::fmt::Display) -> FesError {
        FesError::new(Code::OperationParsingFailed, &*e.local, format!("line {}: {}: {what}", e.line, e.local))
    }

    fn not_supported(e: &Element, what: impl std::fmt::Display) -> FesError {
        FesError::new(Code::OperationNotSupported, &*e.local, format!("line {}: {what}", e.line))
    }

    fn invalid(locator: &str, message: impl Into<String>) -> FesError {
        FesError::new(Code::InvalidParameterValue, locator, message)
    }
}

impl From<GmlError> for FesError {
    fn from(e: GmlError) -> FesError {
        FesError::new(Code::InvalidParameterValue, e.locator.clone(), e.to_string())
    }
}

/// What a filter is about.
pub struct Context<'a> {
    pub ft: &'a FeatureType,
    /// How its coordinates are meant.
    pub axes: &'a Axes,
    /// Whether a name is one of the catalogue's types: an id of another type is an error.
    pub is_type: &'a dyn Fn(&str) -> bool,
}

/// Reads a `Filter` element: one predicate, or any number of ids.
pub fn parse_filter(filter: &Element, context: &Context<'_>) -> Result<Filter, FesError> {
    match &filter.children[..] {
        [] => Err(FesError::parsing(filter, "is empty")),
        [id, ..] if is_id(id) => ids(&filter.children, context),
        [predicate] => context.predicate(predicate),
        _ => Err(FesError::parsing(filter, "more than one predicate (And or Or is missing)")),
    }
}

/// The ids of the query string's `resourceId`.
pub fn ids_of_text(text: &str, context: &Context<'_>) -> Result<Filter, FesError> {
    let ids = text.split(',').map(str::trim).filter(|rid| !rid.is_empty());
    ids.map(|rid| context.id(rid)).collect::<Result<Vec<_>, _>>().map(Filter::ids)
}

/// Those of FES 2.0, 7.9, that capabilities may name: AnyInteracts has no place in its schema.
pub const TEMPORAL_OPERATORS: [&str; 13] = [
    "After",
    "Before",
    "Begins",
    "BegunBy",
    "TContains",
    "During",
    "EndedBy",
    "Ends",
    "TEquals",
    "Meets",
    "MetBy",
    "TOverlaps",
    "OverlappedBy",
];

fn is_spatial(operator: &str) -> bool {
    matches!(operator, "BBOX" | "DWithin" | "Beyond")
        || matches!(operator, "Intersects" | "Disjoint" | "Within" | "Contains" | "Touches" | "Crosses" | "Overlaps")
        || matches!(operator, "Equals" | "Intersect")
}

fn is_reference(e: &Element) -> bool {
    matches!(&*e.local, "ValueReference" | "PropertyName")
}

fn is_id(e: &Element) -> bool {
    matches!(&*e.local, "ResourceId" | "FeatureId" | "GmlObjectId")
}

fn ids(elements: &[Element], context: &Context<'_>) -> Result<Filter, FesError> {
    let id = |e: &Element| {
        if !is_id(e) {
            return Err(FesError::parsing(e, "ids cannot be mixed with other predicates without And or Or"));
        }
        let rid = e.attribute("rid").or(e.attribute("fid")).or(e.attribute("id"));
        context.id(rid.ok_or_else(|| FesError::parsing(e, "has no id"))?)
    };
    elements.iter().map(id).collect::<Result<Vec<_>, _>>().map(Filter::ids)
}

impl Context<'_> {
    fn id(&self, rid: &str) -> Result<crate::model::FeatureId, FesError> {
        resolve_rid(rid, &self.ft.name, self.is_type).ok_or_else(|| {
            FesError::invalid("resourceid", format!("'{rid}' is not the id of a feature of type '{}'", self.ft.name))
        })
    }

    fn reference(&self, e: &Element) -> Result<Reference, FesError> {
        resolve_reference(e.trimmed(), self.ft)
    }

    /// Depth is bounded by the XML reader's.
    fn predicate(&self, e: &Element) -> Result<Filter, FesError> {
        match &*e.local {
            "And" | "Or" => {
                let parts = e.children.iter().map(|c| self.predicate(c)).collect::<Result<Vec<_>, _>>()?;
                match (parts.is_empty(), &*e.local) {
                    (true, _) => Err(FesError::parsing(e, "is empty")),
                    (false, "And") => Ok(parts.into_iter().fold(Filter::All, Filter::and)),
                    (false, _) => Ok(Filter::Or(parts)),
                }
            }
            "Not" => match &e.children[..] {
                [inner] => Ok(Filter::Not(Box::new(self.predicate(inner)?))),
                _ => Err(FesError::parsing(e, "needs one predicate")),
            },
            _ if is_id(e) => ids(std::slice::from_ref(e), self),
            local if local.starts_with("PropertyIs") => self.comparison(e),
            "BBOX" => self.bbox(e),
            "DWithin" | "Beyond" => self.distance(e),
            local if is_spatial(local) => self.spatial(e),
            "AnyInteracts" => self.temporal(e),
            local if TEMPORAL_OPERATORS.contains(&local) => self.temporal(e),
            local => Err(FesError::not_supported(e, format!("the operator '{local}' is not supported"))),
        }
    }
}

#[cfg(test)]
mod tests;
