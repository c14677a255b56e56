//! Stored queries: the one that every WFS has, GetFeatureById (WFS 2.0, 7.9.3.6 and 14).

use axum::response::Response;

use super::exception::{Exception, Result};
use super::{Ask, WFS_NS, xml_response};
use crate::format::gml::{APP, APP_NS};

/// As 2.0.0 spells it.
const BY_ID: &str = "urn:ogc:def:query:OGC-WFS::GetFeatureById";
/// As 2.0.2 spells it.
const BY_ID_URI: &str = "http://www.opengis.net/def/query/OGC-WFS/0/GetFeatureById";

pub fn is_get_feature_by_id(id: &str) -> bool {
    matches!(id.trim(), BY_ID | BY_ID_URI)
}

fn return_types(ask: &Ask) -> Vec<String> {
    ask.web.feature_types(&ask.caller).iter().map(|t| format!("{APP}:{}", t.name)).collect()
}

pub fn list(ask: &Ask) -> Result<Response> {
    let types = return_types(ask).into_iter().map(|t| format!("<wfs:ReturnFeatureType>{t}</wfs:ReturnFeatureType>"));
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <wfs:ListStoredQueriesResponse xmlns:wfs=\"{WFS_NS}\" xmlns:{APP}=\"{APP_NS}\"><wfs:StoredQuery id=\"{BY_ID}\">\
         <wfs:Title>A feature by its id</wfs:Title>{}</wfs:StoredQuery></wfs:ListStoredQueriesResponse>\n",
        types.collect::<String>()
    );
    Ok(xml_response(body, "text/xml; charset=UTF-8"))
}

/// `ids`: separated by commas; `None`: all.
pub fn describe(ask: &Ask, ids: Option<&str>) -> Result<Response> {
    let asked: Vec<&str> = ids.map_or(vec![BY_ID], |ids| ids.split(',').map(str::trim).collect());
    let types = return_types(ask).join(" ");
    let mut body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <wfs:DescribeStoredQueriesResponse xmlns:wfs=\"{WFS_NS}\" xmlns:fes=\"http://www.opengis.net/fes/2.0\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:{APP}=\"{APP_NS}\">"
    );
    for id in asked {
        if !is_get_feature_by_id(id) {
            return Err(Exception::invalid("storedQuery_Id", format!("there is no stored query '{id}'")));
        }
        body.push_str(&format!(
            "<wfs:StoredQueryDescription id=\"{id}\"><wfs:Title>A feature by its id</wfs:Title>\
             <wfs:Parameter name=\"id\" type=\"xsd:string\"/>\
             <wfs:QueryExpressionText returnFeatureTypes=\"{types}\" isPrivate=\"true\" \
             language=\"urn:ogc:def:queryLanguage:OGC-WFS::WFSQueryExpression\"/></wfs:StoredQueryDescription>"
        ));
    }
    body.push_str("</wfs:DescribeStoredQueriesResponse>\n");
    Ok(xml_response(body, "text/xml; charset=UTF-8"))
}
