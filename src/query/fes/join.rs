//! Filters over two feature types (WFS 2.0, 7.9.2.5.3).
//!
//! The conditions under the outermost And are taken apart: one that names one type is that type's own filter, one that names
//! both is a condition of the join. A condition on two geometries stands by itself or under that And, never under Or or Not.

use std::convert::Infallible;
use std::sync::Arc;

use super::spatial::spatial_op;
use super::{Code, Context, FesError, Reference, is_id, is_reference, is_spatial, parse_filter, resolve_reference};
use crate::format::gml::Axes;
use crate::format::xml::Element;
use crate::model::FeatureType;
use crate::model::crs::Transform;
use crate::query::filter::Filter;
use crate::query::join::{Join, Place, row_type};

/// The two types of a join, and by what names references tell them apart.
pub struct Sides<'a> {
    pub types: [Arc<FeatureType>; 2],
    /// Aliases, or the types' own names; not the same.
    pub names: [&'a str; 2],
    /// How the coordinates of each are meant.
    pub axes: &'a [Axes; 2],
    /// Whether a name is one of the catalogue's types.
    pub is_type: &'a dyn Fn(&str) -> bool,
}

/// What a filter says of each type, and of the pairs.
pub struct Joined {
    pub own: [Filter; 2],
    pub join: Join,
}

/// Splits a `Filter` element; none: every pair.
pub fn parse_join(filter: Option<&Element>, sides: &Sides<'_>) -> Result<Joined, FesError> {
    let row = row_type(sides.names, [&sides.types[0], &sides.types[1]]);
    let of_row = Context { ft: &row, axes: &sides.axes[0], is_type: sides.is_type };
    let (mut own, mut values, mut places) = ([Filter::All, Filter::All], Filter::All, Vec::new());
    for condition in filter.map(conditions).transpose()?.unwrap_or_default() {
        match sides.named_in(condition)? {
            [true, true] if is_spatial(&condition.local) => places.push(sides.place(condition)?),
            [true, true] => {
                let flat = renamed(condition, &|text| sides.in_row(text))?;
                values = values.and(of_row.predicate(&flat)?);
            }
            [_, second] => {
                let side = usize::from(second);
                let alone = renamed(condition, &|text| sides.resolve(text).map(|(_, rest)| rest.to_owned()))?;
                let context = sides.context(side);
                let filter = match &*alone.local {
                    "Filter" => parse_filter(&alone, &context)?,
                    _ => context.predicate(&alone)?,
                };
                own[side] = std::mem::take(&mut own[side]).and(filter);
            }
        }
    }
    let [first, second] = sides.axes;
    let transform = Transform::between(second.target, first.target);
    Ok(Joined { own, join: Join::new(values, places, sides.types.clone(), transform) })
}

/// What must all hold. A list of ids is one condition, the filter itself.
fn conditions(filter: &Element) -> Result<Vec<&Element>, FesError> {
    fn flatten<'e>(e: &'e Element, all: &mut Vec<&'e Element>) {
        match &*e.local {
            "And" => e.children.iter().for_each(|child| flatten(child, all)),
            _ => all.push(e),
        }
    }
    let mut all = Vec::new();
    match &filter.children[..] {
        [predicate] => flatten(predicate, &mut all),
        _ => all.push(filter),
    }
    if all.is_empty() { Err(FesError::parsing(filter, "is empty")) } else { Ok(all) }
}

/// The element with other references.
fn renamed<E>(e: &Element, name: &dyn Fn(&str) -> Result<String, E>) -> Result<Element, E> {
    let mut copy = e.clone();
    if is_reference(e) {
        copy.text = name(e.trimmed())?;
    } else {
        copy.children = e.children.iter().map(|child| renamed(child, name)).collect::<Result<_, _>>()?;
    }
    Ok(copy)
}

/// A reference without the alias before it.
pub fn unaliased<'t>(text: &'t str, alias: &str) -> &'t str {
    match text.trim().trim_start_matches('/').split_once('/') {
        Some((first, rest)) if first.rsplit_once(':').map_or(first, |(_, local)| local) == alias => rest,
        _ => text,
    }
}

/// A filter whose references stand without the alias before them.
pub fn unaliased_filter(filter: &Element, alias: &str) -> Element {
    let plain = |text: &str| unaliased(text, alias).to_owned();
    renamed(filter, &|text| Ok::<_, Infallible>(plain(text))).unwrap_or_else(|never| match never {})
}

impl Sides<'_> {
    fn context(&self, side: usize) -> Context<'_> {
        Context { ft: &self.types[side], axes: &self.axes[side], is_type: self.is_type }
    }

    /// Which type a reference is about, and what it says of that: `a/app:x`, or `x` where only one type has it.
    pub fn resolve<'t>(&self, text: &'t str) -> Result<(usize, &'t str), FesError> {
        let path = text.trim().trim_start_matches("./").trim_start_matches('/');
        let only = |is: &dyn Fn(usize) -> bool| match [is(0), is(1)] {
            [false, false] => Ok(None),
            [true, true] => {
                let [a, b] = self.names;
                Err(FesError::invalid(text, format!("'{text}' may be of '{a}' or of '{b}': say which, as '{a}/...'")))
            }
            [_, second] => Ok(Some(usize::from(second))),
        };
        if let Some((first, rest)) = path.split_once('/') {
            let first = first.strip_prefix("schema-element(").and_then(|s| s.strip_suffix(')')).unwrap_or(first);
            let first = first.rsplit_once(':').map_or(first, |(_, local)| local);
            if let Some(side) = self.names.iter().position(|name| *name == first) {
                return Ok((side, rest));
            }
            if let Some(side) = only(&|side| self.types[side].name == first)? {
                return Ok((side, rest));
            }
        }
        let side = only(&|side| resolve_reference(path, &self.types[side]).is_ok())?;
        let [a, b] = self.names;
        let unknown = || FesError::invalid(text, format!("neither '{a}' nor '{b}' has a property '{text}'"));
        Ok((side.ok_or_else(unknown)?, path))
    }

    /// A reference as a name in the row of a pair.
    fn in_row(&self, text: &str) -> Result<String, FesError> {
        let (side, rest) = self.resolve(text)?;
        let (name, ft) = (self.names[side], &self.types[side]);
        match resolve_reference(rest, ft)? {
            Reference::Property(slot) => Ok(format!("{name}.{}", ft.properties[slot].name)),
            Reference::Id => Ok(format!("{name}.id")),
            Reference::Geometry | Reference::BoundedBy | Reference::Standard => {
                Err(FesError::invalid(text, format!("'{text}' has no value to compare")))
            }
        }
    }

    /// Which types a condition names.
    fn named_in(&self, e: &Element) -> Result<[bool; 2], FesError> {
        if is_reference(e) {
            let (side, _) = self.resolve(e.trimmed())?;
            return Ok([side == 0, side == 1]);
        }
        if is_id(e) {
            return self.of_id(e);
        }
        let mut named = [false; 2];
        for child in &e.children {
            let [first, second] = self.named_in(child)?;
            named = [named[0] || first, named[1] || second];
        }
        match (named, &e.children[..]) {
            ([false, false], _) if is_spatial(&e.local) => self.of_the_geometry(e),
            ([true, true], [id, ..]) if &*e.local == "Filter" && is_id(id) => {
                Err(FesError::not_supported(e, "the ids of a join are of one type"))
            }
            ([true, true], _) if !is_spatial(&e.local) && e.children.iter().any(has_spatial) => {
                Err(FesError::not_supported(e, "a condition on geometries is no part of another one between two types"))
            }
            _ => Ok(named),
        }
    }

    /// Of an operator that does not say of which geometry it speaks.
    fn of_the_geometry(&self, e: &Element) -> Result<[bool; 2], FesError> {
        match self.types.each_ref().map(|ft| ft.geometry.is_some()) {
            [true, true] => Err(FesError::parsing(e, "needs a property: both types have a geometry")),
            which => Ok(which),
        }
    }

    fn of_id(&self, e: &Element) -> Result<[bool; 2], FesError> {
        let id = e.attribute("rid").or(e.attribute("fid")).or(e.attribute("id")).unwrap_or_default();
        let named = id.split_once('.').map(|(name, _)| name);
        match self.types.each_ref().map(|ft| named == Some(&ft.name)) {
            [true, true] | [false, false] => {
                let [a, _] = self.names;
                let message = format!("'{id}' does not tell which of the two types it is of: compare '{a}/@gml:id'");
                Err(FesError::invalid("resourceid", message))
            }
            which => Ok(which),
        }
    }

    /// A condition on the geometries of both.
    fn place(&self, e: &Element) -> Result<Place, FesError> {
        let mut first_operand = None;
        for operand in e.children.iter().filter(|child| &*child.local != "Distance") {
            if !is_reference(operand) {
                return Err(FesError::parsing(operand, "the operands of a join are references"));
            }
            let (side, rest) = self.resolve(operand.trimmed())?;
            if resolve_reference(rest, &self.types[side])? != Reference::Geometry {
                let name = operand.trimmed();
                return Err(FesError::invalid(name, format!("{}: '{name}' is not a geometry", e.local)));
            }
            first_operand = first_operand.or(Some(side));
        }
        let limit = || self.context(0).limit(e);
        match &*e.local {
            "DWithin" => limit().map(|(limit, measure)| Place::Within(limit, measure)),
            "Beyond" => limit().map(|(limit, measure)| Place::Beyond(limit, measure)),
            "BBOX" => Err(FesError::new(Code::OperationNotSupported, "BBOX", "BBOX has one geometry: take Intersects")),
            name => Ok(Place::Related(spatial_op(name, first_operand == Some(1)))),
        }
    }
}

fn has_spatial(e: &Element) -> bool {
    is_spatial(&e.local) || e.children.iter().any(has_spatial)
}
