//! One query of a GetFeature or GetPropertyValue: what was asked, and what it means to the store.

use std::sync::Arc;

use super::exception::{Code, Exception, Result};
use super::{Ask, Version};
use crate::format::gml::{Axes, Selection};
use crate::format::xml::Element;
use crate::model::crs::{Crs, CrsRef, Transform};
use crate::model::{FeatureType, Rect, Value};
use crate::query::fes::{self, Reference};
use crate::query::{Filter, Query, cql};
use crate::web::with_decimals;

/// As it was asked; all conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct QueryRequest {
    pub type_name: String,
    /// What its references call the type, besides its name.
    pub alias: Option<String>,
    /// It is a join.
    pub join: Option<JoinRequest>,
    pub srs_name: Option<String>,
    /// References to properties; none: all of them.
    pub properties: Vec<String>,
    pub filter: Option<Element>,
    /// A filter as text, which other servers' clients send.
    pub cql: Option<String>,
    /// Separated by commas.
    pub resource_ids: Option<String>,
    pub bbox: Option<String>,
    /// As in the query string: `a ASC,b DESC`.
    pub sort_by: Option<String>,
    /// Of coordinates in the answer; `None`: what the settings say.
    pub decimals: Option<u8>,
}

/// The second type of a join.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    pub type_name: String,
    /// What the filter calls the two types.
    pub aliases: Option<[String; 2]>,
}

/// As it is done.
pub struct Prepared {
    pub ft: Arc<FeatureType>,
    pub query: Query,
    /// Of the answer's coordinates.
    pub crs: CrsRef,
    pub crs_was_asked: bool,
    pub selection: Selection,
}

/// How coordinates in a request of `version` about `ft` are meant.
pub fn axes(ft: &FeatureType, version: Version) -> Axes {
    let stored = stored_crs(ft);
    Axes { default: version.crs(stored), always_xy: version.always_xy(), target: stored }
}

/// The CRS that the type's geometries are stored in; any of a type without geometry.
pub fn stored_crs(ft: &FeatureType) -> Crs {
    ft.geometry.and_then(|g| Crs::from_epsg(g.epsg)).unwrap_or(Crs::WGS84)
}

impl QueryRequest {
    /// A type as the answer shows it.
    pub fn shown(&self, ask: &Ask, type_name: &str) -> Result<Arc<FeatureType>> {
        let ft = ask.feature_type(type_name)?;
        Ok(with_decimals(&ft, self.decimals.or(ft.decimals)))
    }

    /// Of one type.
    pub fn prepare(&self, ask: &Ask) -> Result<Prepared> {
        if self.join.is_some() {
            let text = "a join is offered in GetFeature alone";
            return Err(Exception::new(Code::OptionNotSupported, "typeNames", text));
        }
        if let Some(alias) = &self.alias {
            return self.without(alias).prepare(ask);
        }
        let ft = self.shown(ask, &self.type_name)?;
        let axes = axes(&ft, ask.version);
        let is_type = |name: &str| ask.is_type(name);
        let context = fes::Context { ft: &ft, axes: &axes, is_type: &is_type };
        let mut filter = Filter::All;
        if let Some(element) = &self.filter {
            filter = filter.and(fes::parse_filter(element, &context)?);
        }
        if let Some(text) = &self.cql {
            let crs = CrsRef::short(axes.target);
            let context = cql::Context { ft: &ft, crs, target: axes.target, is_type: &is_type };
            let more = cql::Expression::from_text(text).and_then(|e| e.bind(&context));
            filter = filter.and(more.map_err(|e| Exception::invalid("cql_filter", e.to_string()))?);
        }
        if let Some(ids) = &self.resource_ids {
            filter = filter.and(fes::ids_of_text(ids, &context)?);
        }
        if let Some(bbox) = &self.bbox {
            if ft.geometry.is_none() {
                return Err(Exception::invalid("bbox", format!("feature type '{}' has no geometry", ft.name)));
            }
            filter = filter.and(Filter::Bbox(parse_bbox(bbox, &axes)?));
        }
        if let Some(lock) = &ask.lock {
            let locked = lock.features.iter().filter(|(name, _)| *name == ft.name);
            filter = filter.and(Filter::ids(locked.map(|(_, id)| id.clone())));
        }
        let crs = match &self.srs_name {
            Some(name) => axes.parse(name).map_err(|e| Exception::invalid("srsName", e))?,
            None => axes.default.clone(),
        };
        let sort = fes::sort_keys_of_text(self.sort_by.as_deref().unwrap_or_default(), &ft)?;
        let names: Vec<&str> = self.properties.iter().map(String::as_str).collect();
        let none = names.iter().all(|n| n.trim().is_empty());
        let selection = if none { Selection::all(&ft) } else { selection(&names, &ft)? };
        let query =
            Query { feature_type: ft.name.clone(), filter, sort, at_least: ask.at_least.clone(), ..Query::default() };
        Ok(Prepared { ft, query, crs, crs_was_asked: self.srs_name.is_some(), selection })
    }
}

impl QueryRequest {
    /// The same, in references that stand by themselves.
    fn without(&self, alias: &str) -> QueryRequest {
        let own = |text: &String| fes::unaliased(text, alias).to_owned();
        let keys = |keys: &String| keys.split(',').map(|key| fes::unaliased(key, alias)).collect::<Vec<_>>().join(",");
        QueryRequest {
            alias: None,
            filter: self.filter.as_ref().map(|filter| fes::unaliased_filter(filter, alias)),
            properties: self.properties.iter().map(own).collect(),
            sort_by: self.sort_by.as_ref().map(keys),
            ..self.clone()
        }
    }
}

/// How many members a page of the answer to these queries has at most: as the strictest of their types has it.
pub fn longest_page(ask: &Ask, queries: &[QueryRequest]) -> Result<u64> {
    let joined = queries.iter().filter_map(|q| q.join.as_ref()).map(|join| &join.type_name);
    let longest = |name: &String| Ok(ask.web.server.max_limit_of(&*ask.feature_type(name)?));
    let longest: Result<Vec<u64>> = queries.iter().map(|q| &q.type_name).chain(joined).map(longest).collect();
    Ok(longest?.into_iter().min().unwrap_or(ask.web.server.max_limit))
}

/// What of a feature these references name.
pub fn selection(names: &[&str], ft: &FeatureType) -> Result<Selection> {
    let (mut geometry, mut named) = (false, Vec::new());
    for name in names.iter().map(|n| n.trim()).filter(|n| !n.is_empty()) {
        if name == "*" {
            return Ok(Selection::all(ft));
        }
        match fes::resolve_reference(name, ft) {
            Ok(Reference::Property(slot)) => named.push(slot),
            Ok(Reference::Geometry) => geometry = true,
            Ok(Reference::Id | Reference::BoundedBy | Reference::Standard) => {}
            Err(e) => return Err(Exception::invalid("propertyName", e.message)),
        }
    }
    Ok(Selection::of(ft, geometry, &named))
}

/// `minx,miny,maxx,maxy[,crs]` in the order of the CRS (the type's own where none is named), or six numbers in three
/// dimensions. Gives a box in the stored CRS.
fn parse_bbox(text: &str, axes: &Axes) -> Result<Rect> {
    let wrong = |what: String| Exception::invalid("bbox", format!("bbox '{text}': {what}"));
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let numbers: Vec<f64> = parts.iter().map_while(|p| p.parse().ok().filter(|n: &f64| n.is_finite())).collect();
    let (a, b, c, d) = match numbers[..] {
        [a, b, c, d] => (a, b, c, d),
        [a, b, _, c, d, _] => (a, b, c, d),
        _ => return Err(wrong("four numbers are expected, and perhaps a CRS".into())),
    };
    let crs = match &parts[numbers.len()..] {
        [] => axes.default.clone(),
        [crs] => axes.parse(crs).map_err(wrong)?,
        _ => return Err(wrong("four numbers are expected, and perhaps a CRS".into())),
    };
    let (min_x, min_y, max_x, max_y) = if crs.swap { (b, a, d, c) } else { (a, b, c, d) };
    if min_x > max_x || min_y > max_y {
        return Err(wrong("the lower corner is beyond the upper one".into()));
    }
    let rect = Rect { min_x, min_y, max_x, max_y };
    match Transform::between(crs.crs, axes.target) {
        None => Ok(rect),
        Some(t) => t.rect(rect).map_err(|e| wrong(e.to_string())),
    }
}

impl Prepared {
    /// Only the features that have something at `reference`: those that a value collection has members for.
    pub fn having(mut self, reference: Reference) -> Result<Prepared> {
        use crate::query::Operand;
        let operand = match reference {
            Reference::Property(slot) => Operand::Property(slot),
            Reference::Geometry => Operand::Geometry,
            Reference::Id => return Ok(self),
            Reference::Standard => Operand::Literal(Value::Null),
            Reference::BoundedBy => {
                let text = "gml:boundedBy has no value here";
                return Err(Exception::new(Code::InvalidParameterValue, "valueReference", text));
            }
        };
        self.query.filter = self.query.filter.and(Filter::Not(Box::new(Filter::IsNull(operand))));
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bbox_follows_the_axis_order_of_its_crs() {
        let axes = Axes { default: CrsRef::urn(Crs::WGS84), always_xy: false, target: Crs::WGS84 };
        let rect = Rect { min_x: 23.0, min_y: 59.0, max_x: 25.0, max_y: 61.0 };
        for text in [
            "59,23,61,25",
            "59,23,61,25,urn:ogc:def:crs:EPSG::4326",
            "23,59,25,61,EPSG:4326",
            " 23, 59 ,25,61, CRS:84",
            "59,23,0,61,25,9",
        ] {
            assert_eq!(parse_bbox(text, &axes).unwrap(), rect, "{text}");
        }
        let old = Axes { default: Version::V1_0.crs(Crs::WGS84), always_xy: true, target: Crs::WGS84 };
        for text in ["23,59,25,61", "23,59,25,61,urn:ogc:def:crs:EPSG::4326", "23,59,25,61,EPSG:4326"] {
            assert_eq!(parse_bbox(text, &old).unwrap(), rect, "{text}");
        }
        for text in ["1,2,3", "1,2,3,x", "1,2,3,NaN", "1,2,3,4,EPSG:0", "3,2,1,4", "1,2,3,4,EPSG:4326,x", ""] {
            assert!(parse_bbox(text, &axes).is_err(), "{text}");
        }
    }
}
