//! References to properties, in the forms that clients write them in, and sort keys.

use super::{Code, FesError};
use crate::format::gml::Standard;
use crate::format::xml::Element;
use crate::model::FeatureType;
use crate::model::feature_type::GEOMETRY;
use crate::query::SortKey;

/// What a `ValueReference`, `PropertyName` or `Name` points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A property's id.
    Property(usize),
    Geometry,
    /// `@gml:id`.
    Id,
    /// `gml:boundedBy`: may be asked where it is, but not compared.
    BoundedBy,
    /// One of the properties that GML gives every feature, which the type does not keep: it is in the schema, so to ask for
    /// it is no error.
    Standard,
}

/// Resolves `prop`, `app:prop`, `app:T/app:prop`, `/app:T/app:prop`, `./prop`, `app:prop[1]`, `schema-element(app:T)/app:prop`,
/// `@gml:id`, `gml:boundedBy` and GML's standard properties, also `gml:name/@codeSpace`. Prefixes do not matter, but for `gml:`.
pub fn resolve_reference(text: &str, ft: &FeatureType) -> Result<Reference, FesError> {
    let unknown = || FesError::invalid(text, format!("feature type '{}' has no property '{text}'", ft.name));
    let mut steps = text.trim().split('/').filter(|s| !s.is_empty() && *s != ".");
    let (mut step, mut rest) = (steps.next().ok_or_else(unknown)?, steps.next());
    let first = step.strip_prefix("schema-element(").and_then(|s| s.strip_suffix(')')).unwrap_or(step);
    if let Some(second) = rest.filter(|_| local(first) == ft.name) {
        (step, rest) = (second, steps.next());
    }
    if rest.is_some_and(|attribute| attribute != "@codeSpace") || steps.next().is_some() {
        return Err(unknown());
    }
    if let Some(attribute) = step.strip_prefix('@') {
        return if matches!(local(attribute), "id" | "fid") { Ok(Reference::Id) } else { Err(unknown()) };
    }
    let name = step.strip_suffix("[1]").unwrap_or(step);
    let standard = name.strip_prefix("gml:").and_then(Standard::named);
    if standard.is_some() || rest.is_some() {
        let kept = standard.ok_or_else(unknown)?.kept_by(ft);
        let slot = kept.and_then(|kept| if rest.is_some() { kept.code_space } else { Some(kept.slot) });
        return Ok(slot.map_or(Reference::Standard, Reference::Property));
    }
    match name.strip_prefix("gml:") {
        Some("boundedBy") => Ok(Reference::BoundedBy),
        Some(GEOMETRY) if ft.geometry.is_some() => Ok(Reference::Geometry),
        Some("descriptionReference" | "metaDataProperty") => Ok(Reference::Standard),
        Some(_) => Err(unknown()),
        None if local(name) == GEOMETRY && ft.geometry.is_some() => Ok(Reference::Geometry),
        None => ft.property(local(name)).map(|(slot, _)| Reference::Property(slot)).ok_or_else(unknown),
    }
}

fn local(qname: &str) -> &str {
    qname.rsplit_once(':').map_or(qname, |(_, local)| local)
}

/// Reads a `SortBy` element.
pub fn sort_keys(sort_by: &Element, ft: &FeatureType) -> Result<Vec<SortKey>, FesError> {
    let mut keys = Vec::new();
    for property in sort_by.children_named("SortProperty") {
        let name = property.child("ValueReference").or(property.child("PropertyName"));
        let name = name.ok_or_else(|| FesError::parsing(property, "has no ValueReference"))?;
        keys.extend(sort_key(name.trimmed(), property.child("SortOrder").map_or("ASC", Element::trimmed), ft)?);
    }
    Ok(keys)
}

/// Reads the query string's `sortBy`: `a,b DESC,c A`.
pub fn sort_keys_of_text(text: &str, ft: &FeatureType) -> Result<Vec<SortKey>, FesError> {
    let mut keys = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, order) = part.split_once(char::is_whitespace).unwrap_or((part, "ASC"));
        keys.extend(sort_key(name, order.trim(), ft)?);
    }
    Ok(keys)
}

fn sort_key(name: &str, order: &str, ft: &FeatureType) -> Result<Option<SortKey>, FesError> {
    let descending = match order.to_ascii_uppercase().as_str() {
        "ASC" | "A" => false,
        "DESC" | "D" => true,
        _ => return Err(FesError::invalid("sortBy", format!("'{order}' is not a sort order (ASC, DESC)"))),
    };
    match resolve_reference(name, ft)? {
        Reference::Property(property) => Ok(Some(SortKey { property, descending })),
        // The id is the last key of every order.
        Reference::Id if !descending => Ok(None),
        _ => Err(FesError::new(Code::OperationNotSupported, "sortBy", format!("cannot sort by '{name} {order}'"))),
    }
}
