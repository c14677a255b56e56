//! GetCapabilities (WFS 2.0, 8; OWS Common 1.1, 7).
//!
//! Clients look for its parts by plain text as much as by schema: the prefixes `wfs:` and `app:`, the namespace declared on
//! each feature type, `TRUE` in capitals, and addresses without a query all have readers that need them so.

use axum::response::Response;

use super::exception::{Code, Exception, Result};
use super::get_feature::Format;
use super::kvp::Kvp;
use super::query::stored_crs;
use super::{Ask, Version, WFS_NS, stored_query, xml_response};
use crate::format::gml::{APP, APP_NS, GML_NS, simple_type, write_number};
use crate::format::xml::{self, Element};
use crate::model::crs::{Crs, CrsRef, Transform};
use crate::model::{FeatureType, Rect};
use crate::query::fes::TEMPORAL_OPERATORS;
use crate::query::function::NAMED;
use crate::web::access::Role;

const SECTIONS: [&str; 5] =
    ["ServiceIdentification", "ServiceProvider", "OperationsMetadata", "FeatureTypeList", "Filter_Capabilities"];

/// What GetFeature and GetPropertyValue offer, and what they do not.
const CONFORMANCE: [(&str, bool); 16] = [
    ("ImplementsSimpleWFS", true),
    ("ImplementsBasicWFS", true),
    ("ImplementsLockingWFS", false),
    ("KVPEncoding", true),
    ("XMLEncoding", true),
    ("SOAPEncoding", false),
    ("ImplementsInheritance", false),
    ("ImplementsRemoteResolve", false),
    ("ImplementsResultPaging", true),
    ("ImplementsStandardJoins", false),
    ("ImplementsSpatialJoins", false),
    ("ImplementsTemporalJoins", false),
    ("ImplementsFeatureVersioning", false),
    ("PagingIsTransactionSafe", false),
    ("AutomaticDataLocking", false),
    ("PreservesSiblingOrder", true),
];

const FILTER_CONFORMANCE: [(&str, bool); 15] = [
    ("ImplementsQuery", true),
    ("ImplementsAdHocQuery", true),
    ("ImplementsFunctions", true),
    ("ImplementsResourceId", true),
    ("ImplementsMinStandardFilter", true),
    ("ImplementsStandardFilter", true),
    ("ImplementsMinSpatialFilter", true),
    ("ImplementsSpatialFilter", true),
    ("ImplementsMinTemporalFilter", true),
    ("ImplementsTemporalFilter", true),
    ("ImplementsVersionNav", false),
    ("ImplementsSorting", true),
    ("ImplementsExtendedOperators", false),
    ("ImplementsMinimumXPath", true),
    ("ImplementsSchemaElementFunc", false),
];

pub async fn from_kvp(ask: &Ask, kvp: &Kvp, version: &mut Version) -> Result<Response> {
    let list = |text: &str| text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
    let accepted: Vec<String> = kvp.get("acceptVersions").map(list).unwrap_or_default();
    let sections: Vec<String> = kvp.get("sections").map(list).unwrap_or_default();
    respond(ask, &accepted, &sections, version).await
}

pub async fn from_xml(ask: &Ask, root: &Element, version: &mut Version) -> Result<Response> {
    let texts = |list: &str, item: &str| -> Vec<String> {
        let items = root.child(list).into_iter().flat_map(|l| l.children_named(item));
        items.map(|i| i.trimmed().to_owned()).filter(|t| !t.is_empty()).collect()
    };
    respond(ask, &texts("AcceptVersions", "Version"), &texts("Sections", "Section"), version).await
}

/// Whatever `version` a client of the old negotiation asks for, 2.0.0 is the nearest.
async fn respond(ask: &Ask, accepted: &[String], sections: &[String], version: &mut Version) -> Result<Response> {
    *version = Version::V2_0;
    if !accepted.is_empty() && !accepted.iter().any(|v| Version::parse(v) == Some(Version::V2_0)) {
        let text = format!("none of the versions {} is offered, only 2.0.0", accepted.join(", "));
        return Err(Exception::new(Code::VersionNegotiationFailed, "acceptVersions", text));
    }
    let known = |s: &String| s.eq_ignore_ascii_case("All") || SECTIONS.iter().any(|k| k.eq_ignore_ascii_case(s));
    if let Some(unknown) = sections.iter().find(|s| !known(s)) {
        return Err(Exception::invalid("sections", format!("there is no section '{unknown}'")));
    }
    let wanted = |name: &str| {
        sections.is_empty() || sections.iter().any(|s| s.eq_ignore_ascii_case("All") || s.eq_ignore_ascii_case(name))
    };
    let types = ask.web.feature_types(&ask.caller);
    let mut out = Document::default();
    out.raw(&format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <wfs:WFS_Capabilities version=\"2.0.0\" xmlns:wfs=\"{WFS_NS}\" xmlns:ows=\"http://www.opengis.net/ows/1.1\" \
         xmlns:fes=\"http://www.opengis.net/fes/2.0\" xmlns:gml=\"{GML_NS}\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:{APP}=\"{APP_NS}\" \
         xsi:schemaLocation=\"{WFS_NS} http://schemas.opengis.net/wfs/2.0/wfs.xsd\">\n"
    ));
    if wanted(SECTIONS[0]) {
        out.service_identification(ask);
    }
    if wanted(SECTIONS[1]) {
        out.service_provider(ask);
    }
    if wanted(SECTIONS[2]) {
        let editable = types.iter().any(|t| ask.caller.can(Role::Editor, Some(&t.name)));
        let administers = ask.caller.can(Role::Admin, None);
        out.operations(&ask.href(), editable, administers, ask.web.server.max_limit);
    }
    // The schema has no empty list.
    if wanted(SECTIONS[3]) && !types.is_empty() {
        out.raw("<wfs:FeatureTypeList>\n");
        for ft in &types {
            // A service whose long-term store is away can still say what it offers.
            let bounds = ask.web.store.bounds(&ft.name).await.ok().flatten();
            out.feature_type(ft, bounds.and_then(|b| to_wgs84(ft, b)));
        }
        out.raw("</wfs:FeatureTypeList>\n");
    }
    if wanted(SECTIONS[4]) {
        out.filter_capabilities();
    }
    out.raw("</wfs:WFS_Capabilities>\n");
    Ok(xml_response(out.0, "text/xml; charset=UTF-8"))
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

#[derive(Default)]
struct Document(Vec<u8>);

impl Document {
    fn raw(&mut self, s: &str) {
        self.0.extend_from_slice(s.as_bytes());
    }

    /// `<name>text</name>`, nothing where the text is empty.
    fn element(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.raw(&format!("<{name}>"));
            xml::text(&mut self.0, text);
            self.raw(&format!("</{name}>\n"));
        }
    }

    fn service_identification(&mut self, ask: &Ask) {
        let service = &ask.web.service;
        self.raw("<ows:ServiceIdentification>\n");
        self.element("ows:Title", &service.title);
        self.element("ows:Abstract", &service.description);
        if !service.keywords.is_empty() {
            self.raw("<ows:Keywords>");
            service.keywords.iter().for_each(|k| self.element("ows:Keyword", k));
            self.raw("</ows:Keywords>\n");
        }
        self.raw("<ows:ServiceType>WFS</ows:ServiceType>\n<ows:ServiceTypeVersion>2.0.0</ows:ServiceTypeVersion>\n");
        self.element("ows:Fees", &service.fees);
        self.element("ows:AccessConstraints", &service.access_constraints);
        self.raw("</ows:ServiceIdentification>\n");
    }

    fn service_provider(&mut self, ask: &Ask) {
        let service = &ask.web.service;
        self.raw("<ows:ServiceProvider>\n");
        // The schema demands a name.
        self.element("ows:ProviderName", if service.provider.is_empty() { "unknown" } else { &service.provider });
        self.raw("<ows:ServiceContact>");
        self.element("ows:IndividualName", service.contact_name.as_deref().unwrap_or_default());
        if service.contact_email.is_some() || service.contact_url.is_some() {
            self.raw("<ows:ContactInfo>");
            if let Some(email) = &service.contact_email {
                self.raw("<ows:Address>");
                self.element("ows:ElectronicMailAddress", email);
                self.raw("</ows:Address>");
            }
            if let Some(url) = &service.contact_url {
                self.raw("<ows:OnlineResource xlink:href=\"");
                xml::attribute(&mut self.0, url);
                self.raw("\"/>");
            }
            self.raw("</ows:ContactInfo>");
        }
        self.raw("</ows:ServiceContact>\n</ows:ServiceProvider>\n");
    }

    fn operations(&mut self, href: &str, editable: bool, administers: bool, count_default: u64) {
        let formats: Vec<&str> = Format::ALL.iter().map(|f| f.name()).collect();
        let count_default = count_default.to_string();
        self.raw("<ows:OperationsMetadata>\n");
        self.operation(
            "GetCapabilities",
            href,
            &[("AcceptVersions", &["2.0.0"]), ("AcceptFormats", &["text/xml"]), ("Sections", &SECTIONS)],
            None,
        );
        self.operation("DescribeFeatureType", href, &[("outputFormat", &[Format::Gml.name()])], None);
        self.operation("ListStoredQueries", href, &[], None);
        self.operation("DescribeStoredQueries", href, &[], None);
        if administers {
            self.operation("CreateStoredQuery", href, &[("language", &[stored_query::LANGUAGE])], None);
            self.operation("DropStoredQuery", href, &[], None);
        }
        let resolve: &[&str] = &["none", "local"];
        self.operation(
            "GetFeature",
            href,
            &[("outputFormat", &formats), ("resultType", &["results", "hits"]), ("resolve", resolve)],
            Some(&count_default),
        );
        self.operation(
            "GetPropertyValue",
            href,
            &[("outputFormat", &[Format::Gml.name()]), ("resolve", resolve)],
            None,
        );
        if editable {
            self.operation("Transaction", href, &[("inputFormat", &[Format::Gml.name()])], None);
        }
        self.parameter("version", &["2.0.0"]);
        self.constraint("ows", "ImplementsTransactionalWFS", truth(editable));
        self.constraint("ows", "ManageStoredQueries", truth(administers));
        for (name, holds) in CONFORMANCE {
            self.constraint("ows", name, truth(holds));
        }
        self.constraint("ows", "CountDefault", &count_default);
        self.raw("<ows:Constraint name=\"QueryExpressions\"><ows:AllowedValues><ows:Value>wfs:Query</ows:Value>");
        self.raw("<ows:Value>wfs:StoredQuery</ows:Value></ows:AllowedValues></ows:Constraint>\n");
        self.raw("</ows:OperationsMetadata>\n");
    }

    fn operation(&mut self, name: &str, href: &str, parameters: &[(&str, &[&str])], count_default: Option<&str>) {
        self.raw(&format!("<ows:Operation name=\"{name}\"><ows:DCP><ows:HTTP>"));
        // These two are XML.
        let methods: &[&str] = match name {
            "Transaction" | "CreateStoredQuery" => &["Post"],
            _ => &["Get", "Post"],
        };
        for method in methods {
            self.raw(&format!("<ows:{method} xlink:href=\""));
            xml::attribute(&mut self.0, href);
            self.raw("\"/>");
        }
        self.raw("</ows:HTTP></ows:DCP>");
        parameters.iter().for_each(|(name, values)| self.parameter(name, values));
        if let Some(count) = count_default {
            self.constraint("ows", "CountDefault", count);
        }
        self.raw("</ows:Operation>\n");
    }

    fn parameter(&mut self, name: &str, values: &[&str]) {
        self.raw(&format!("<ows:Parameter name=\"{name}\"><ows:AllowedValues>"));
        for value in values {
            self.raw("<ows:Value>");
            xml::text(&mut self.0, value);
            self.raw("</ows:Value>");
        }
        self.raw("</ows:AllowedValues></ows:Parameter>\n");
    }

    fn constraint(&mut self, prefix: &str, name: &str, value: &str) {
        self.raw(&format!(
            "<{prefix}:Constraint name=\"{name}\"><ows:NoValues/><ows:DefaultValue>{value}</ows:DefaultValue></{prefix}:Constraint>\n"
        ));
    }

    fn feature_type(&mut self, ft: &FeatureType, wgs84: Option<Rect>) {
        self.raw(&format!("<wfs:FeatureType xmlns:{APP}=\"{APP_NS}\"><wfs:Name>{APP}:{}</wfs:Name>\n", ft.name));
        self.element("wfs:Title", ft.title());
        self.element("wfs:Abstract", &ft.description);
        match ft.geometry {
            None => self.raw("<wfs:NoCRS/>\n"),
            Some(_) => {
                let stored = stored_crs(ft);
                self.element("wfs:DefaultCRS", &CrsRef::urn(stored).spelling);
                let others = [Crs::WGS84, Crs::WEB_MERCATOR].into_iter().filter(|crs| *crs != stored);
                others.for_each(|crs| self.element("wfs:OtherCRS", &CrsRef::urn(crs).spelling));
                self.element("wfs:OtherCRS", "urn:ogc:def:crs:OGC:1.3:CRS84");
                self.element("wfs:OtherCRS", &CrsRef::short(stored).spelling);
            }
        }
        self.raw("<wfs:OutputFormats>");
        Format::ALL.iter().for_each(|f| self.element("wfs:Format", f.name()));
        self.raw("</wfs:OutputFormats>\n");
        if let Some(b) = wgs84 {
            self.raw("<ows:WGS84BoundingBox><ows:LowerCorner>");
            self.position(b.min_x, b.min_y);
            self.raw("</ows:LowerCorner><ows:UpperCorner>");
            self.position(b.max_x, b.max_y);
            self.raw("</ows:UpperCorner></ows:WGS84BoundingBox>\n");
        }
        self.raw("</wfs:FeatureType>\n");
    }

    fn position(&mut self, x: f64, y: f64) {
        write_number(&mut self.0, x);
        self.raw(" ");
        write_number(&mut self.0, y);
    }

    fn filter_capabilities(&mut self) {
        self.raw("<fes:Filter_Capabilities>\n<fes:Conformance>\n");
        for (name, holds) in FILTER_CONFORMANCE {
            self.constraint("fes", name, truth(holds));
        }
        self.raw("</fes:Conformance>\n<fes:Id_Capabilities><fes:ResourceIdentifier name=\"fes:ResourceId\"/></fes:Id_Capabilities>\n");
        self.raw("<fes:Scalar_Capabilities><fes:LogicalOperators/>");
        self.names(
            "fes:ComparisonOperator",
            "",
            &[
                "PropertyIsEqualTo",
                "PropertyIsNotEqualTo",
                "PropertyIsLessThan",
                "PropertyIsGreaterThan",
                "PropertyIsLessThanOrEqualTo",
                "PropertyIsGreaterThanOrEqualTo",
                "PropertyIsLike",
                "PropertyIsNull",
                "PropertyIsNil",
                "PropertyIsBetween",
            ],
        );
        self.raw("</fes:Scalar_Capabilities>\n<fes:Spatial_Capabilities>");
        self.names(
            "fes:GeometryOperand",
            "gml:",
            &[
                "Envelope",
                "Point",
                "MultiPoint",
                "LineString",
                "Curve",
                "MultiCurve",
                "Polygon",
                "Surface",
                "MultiSurface",
                "MultiGeometry",
            ],
        );
        self.names(
            "fes:SpatialOperator",
            "",
            &[
                "BBOX",
                "Equals",
                "Disjoint",
                "Intersects",
                "Touches",
                "Crosses",
                "Within",
                "Contains",
                "Overlaps",
                "DWithin",
                "Beyond",
            ],
        );
        self.raw("</fes:Spatial_Capabilities>\n<fes:Temporal_Capabilities>");
        self.names("fes:TemporalOperand", "gml:", &["TimeInstant", "TimePeriod"]);
        self.names("fes:TemporalOperator", "", &TEMPORAL_OPERATORS);
        self.raw("</fes:Temporal_Capabilities>\n<fes:Functions>");
        for function in NAMED {
            self.raw(&format!(
                "<fes:Function name=\"{}\"><fes:Returns>{}</fes:Returns>",
                function.name,
                simple_type(function.returns)
            ));
            self.raw("<fes:Arguments>");
            for (argument, name) in function.arguments.iter().zip(["first", "second"]) {
                let kind = argument.map_or("gml:AbstractGeometryType", simple_type);
                self.raw(&format!("<fes:Argument name=\"{name}\"><fes:Type>{kind}</fes:Type></fes:Argument>"));
            }
            self.raw("</fes:Arguments></fes:Function>\n");
        }
        self.raw("</fes:Functions>\n</fes:Filter_Capabilities>\n");
    }

    /// A list element, named by its items' name and an `s`.
    fn names(&mut self, item: &str, prefix: &str, names: &[&str]) {
        self.raw(&format!("<{item}s>"));
        names.iter().for_each(|name| self.raw(&format!("<{item} name=\"{prefix}{name}\"/>")));
        self.raw(&format!("</{item}s>\n"));
    }
}

fn truth(holds: bool) -> &'static str {
    if holds { "TRUE" } else { "FALSE" }
}
