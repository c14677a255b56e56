//! DescribeFeatureType (WFS 2.0, 9; 1.1.0, 8; 1.0.0, 8).

use axum::response::Response;

use super::exception::{Exception, Result};
use super::format::Format;
use super::kvp::Kvp;
use super::{Ask, xml_response};
use crate::format::gml;
use crate::format::xml::Element;

pub fn from_kvp(ask: &Ask, kvp: &Kvp) -> Result<Response> {
    let names = kvp.any(&["typeNames", "typeName"]).unwrap_or_default();
    let names = names.split([',', '(', ')']).map(str::trim).filter(|n| !n.is_empty());
    respond(ask, names, kvp.get("outputFormat"))
}

/// `TypeName` may stand in no namespace: Leaflet-WFST writes it so.
pub fn from_xml(ask: &Ask, root: &Element) -> Result<Response> {
    let names = root.children_named("TypeName").map(Element::trimmed);
    respond(ask, names, root.attribute("outputFormat"))
}

/// No name: all types.
fn respond<'a>(ask: &Ask, names: impl Iterator<Item = &'a str>, format: Option<&str>) -> Result<Response> {
    let gml = match format {
        None => ask.version.dialect().gml,
        Some(name) if name.eq_ignore_ascii_case("XMLSCHEMA") => ask.version.dialect().gml,
        Some(name) => match Format::parse(name, ask.version)? {
            Format::Gml(gml) => gml,
            _ => {
                return Err(Exception::invalid("outputFormat", format!("'{name}' is no format for a schema")));
            }
        },
    };
    let mut types = names.map(|name| ask.feature_type(name)).collect::<Result<Vec<_>>>()?;
    if types.is_empty() {
        types = ask.feature_types();
    }
    types.dedup_by(|a, b| a.name == b.name);
    Ok(xml_response(gml::schema(types.iter().map(AsRef::as_ref), gml), gml.media_type()))
}
