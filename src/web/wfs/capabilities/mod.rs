//! GetCapabilities (WFS 2.0, 8; 1.1.0, 13; 1.0.0, 12; OWS Common, 7): which version answers, and what of the document is wanted.
//!
//! Clients look for its parts by plain text as much as by schema: the prefixes `wfs:` and `app:`, the namespace declared on
//! each feature type, `TRUE` in capitals, and addresses without a query all have readers that need them so.

mod filter;
mod ows;
mod v1_0;

use std::sync::Arc;

use axum::response::Response;

use super::exception::{Code, Exception, Result};
use super::kvp::Kvp;
use super::query::stored_crs;
use super::{Ask, OLD_WFS_NS, Version, version, xml_response};
use crate::format::gml::write_number;
use crate::format::xml::{self, Element};
use crate::model::crs::{Crs, Transform};
use crate::model::{FeatureType, Rect};
use crate::web::access::Role;

const SECTIONS: [&str; 5] =
    ["ServiceIdentification", "ServiceProvider", "OperationsMetadata", "FeatureTypeList", "Filter_Capabilities"];

pub async fn from_kvp(ask: &Ask, kvp: &Kvp, version: &mut Version) -> Result<Response> {
    let list = |text: &str| text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
    let accepted: Vec<String> = kvp.get("acceptVersions").map(list).unwrap_or_default();
    let sections: Vec<String> = kvp.get("sections").map(list).unwrap_or_default();
    *version = negotiated(&accepted, kvp.get("version"), Version::V2_0)?;
    respond(ask, &sections, *version).await
}

pub async fn from_xml(ask: &Ask, root: &Element, version: &mut Version) -> Result<Response> {
    let texts = |list: &str, item: &str| -> Vec<String> {
        let items = root.child(list).into_iter().flat_map(|l| l.children_named(item));
        items.map(|i| i.trimmed().to_owned()).filter(|t| !t.is_empty()).collect()
    };
    // A document of 1.1 has no attribute for its version.
    let own = if &*root.ns == OLD_WFS_NS { Version::V1_1 } else { Version::V2_0 };
    *version = negotiated(&texts("AcceptVersions", "Version"), root.attribute("version"), own)?;
    respond(ask, &texts("Sections", "Section"), *version).await
}

/// The first of the accepted ones that is offered; without any the old rule, by which there always is one.
fn negotiated(accepted: &[String], asked: Option<&str>, default: Version) -> Result<Version> {
    match asked {
        _ if !accepted.is_empty() => accepted.iter().find_map(|text| Version::parse(text)).ok_or_else(|| {
            let text = format!("none of the versions {} is offered", accepted.join(", "));
            Exception::new(Code::VersionNegotiationFailed, "acceptVersions", text)
        }),
        None => Ok(default),
        Some(text) => Version::nearest(text).ok_or_else(|| version::unknown(text)),
    }
}

/// What the document is made from.
struct Contents<'a> {
    ask: &'a Ask,
    version: Version,
    /// Empty where its section is not wanted.
    types: Vec<Offered>,
    /// Whether the caller may write to any type.
    editable: bool,
}

struct Offered {
    ft: Arc<FeatureType>,
    /// Whether the caller may write to it.
    editable: bool,
    /// In longitude and latitude; `None` where there is nothing.
    bounds: Option<Rect>,
}

async fn respond(ask: &Ask, sections: &[String], version: Version) -> Result<Response> {
    let known = |s: &String| s.eq_ignore_ascii_case("All") || SECTIONS.iter().any(|k| k.eq_ignore_ascii_case(s));
    if let Some(unknown) = sections.iter().find(|s| !known(s)) {
        return Err(Exception::invalid("sections", format!("there is no section '{unknown}'")));
    }
    let wanted = |name: &str| {
        // 1.0 has no sections.
        let all = version == Version::V1_0 || sections.is_empty();
        all || sections.iter().any(|s| s.eq_ignore_ascii_case("All") || s.eq_ignore_ascii_case(name))
    };
    let may_edit = |ft: &FeatureType| ask.caller.can(Role::Editor, Some(&ft.name));
    let all = ask.feature_types();
    let editable = all.iter().any(|ft| may_edit(ft));
    let mut types = Vec::new();
    for ft in all.into_iter().filter(|_| wanted("FeatureTypeList")) {
        // A service whose long-term store is away can still say what it offers.
        let bounds = ask.web.store.bounds(&ft.name).await.ok().flatten();
        types.push(Offered { editable: may_edit(&ft), bounds: bounds.and_then(|b| to_wgs84(&ft, b)), ft });
    }
    let contents = Contents { ask, version, types, editable };
    let document = match version {
        Version::V1_0 => v1_0::document(&contents),
        Version::V1_1 | Version::V2_0 => ows::document(&contents, wanted),
    };
    Ok(xml_response(document.out, "text/xml; charset=UTF-8"))
}

fn to_wgs84(ft: &FeatureType, bounds: Rect) -> Option<Rect> {
    let b = match Transform::between(stored_crs(ft), Crs::WGS84) {
        None => bounds,
        Some(t) => t.rect(bounds).ok()?,
    };
    Some(Rect {
        min_x: b.min_x.clamp(-180.0, 180.0),
        min_y: b.min_y.clamp(-90.0, 90.0),
        max_x: b.max_x.clamp(-180.0, 180.0),
        max_y: b.max_y.clamp(-90.0, 90.0),
    })
}

struct Document {
    version: Version,
    out: Vec<u8>,
}

impl Document {
    fn new(version: Version) -> Document {
        Document { version, out: b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_vec() }
    }

    fn raw(&mut self, s: &str) {
        self.out.extend_from_slice(s.as_bytes());
    }

    /// `<name>text</name>`, nothing where the text is empty.
    fn element(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.raw(&format!("<{name}>"));
            xml::text(&mut self.out, text);
            self.raw(&format!("</{name}>\n"));
        }
    }

    /// `name="value"` after a blank.
    fn attribute(&mut self, name: &str, value: &str) {
        self.raw(&format!(" {name}=\""));
        xml::attribute(&mut self.out, value);
        self.raw("\"");
    }

    fn number(&mut self, n: f64) {
        write_number(&mut self.out, n);
    }
}
