//! Capabilities in the form of OWS Common: those of WFS 2.0, 8.3 and 1.1.0, 13.3, which differ in names more than in shape.

use super::{Contents, Document, Offered, SECTIONS};
use crate::format::gml::{APP, APP_NS, GmlVersion};
use crate::format::xml;
use crate::model::crs::{Crs, CrsRef};
use crate::web::access::Role;
use crate::web::wfs::format::Format;
use crate::web::wfs::query::stored_crs;
use crate::web::wfs::{Ask, Version, stored_query};

/// What GetFeature and GetPropertyValue offer, and what they do not.
const CONFORMANCE: [(&str, bool); 15] = [
    ("ImplementsSimpleWFS", true),
    ("ImplementsBasicWFS", true),
    ("KVPEncoding", true),
    ("XMLEncoding", true),
    ("SOAPEncoding", false),
    ("ImplementsInheritance", false),
    ("ImplementsRemoteResolve", false),
    ("ImplementsResultPaging", true),
    ("ImplementsStandardJoins", true),
    ("ImplementsSpatialJoins", true),
    ("ImplementsTemporalJoins", true),
    ("ImplementsFeatureVersioning", false),
    ("PagingIsTransactionSafe", false),
    ("AutomaticDataLocking", true),
    ("PreservesSiblingOrder", true),
];

const LOCK_ACTIONS: [&str; 2] = ["ALL", "SOME"];

/// The sections that are `wanted`.
pub(super) fn document(contents: &Contents<'_>, wanted: impl Fn(&str) -> bool) -> Document {
    let Contents { ask, version, types, editable } = contents;
    let mut out = Document::new(*version);
    out.root();
    if wanted("ServiceIdentification") {
        out.service_identification(ask);
    }
    if wanted("ServiceProvider") {
        out.service_provider(ask);
    }
    if wanted("OperationsMetadata") {
        match version {
            Version::V2_0 => {
                let administers = ask.caller.can(Role::Admin, None);
                out.operations_2_0(&ask.href(), *editable, administers, ask.web.server.max_limit);
            }
            _ => out.operations_1_1(&ask.href(), *editable),
        }
    }
    // The schemas have no empty list.
    if !types.is_empty() {
        out.raw("<wfs:FeatureTypeList>\n");
        types.iter().for_each(|offered| out.feature_type(offered));
        out.raw("</wfs:FeatureTypeList>\n");
    }
    match version {
        Version::V2_0 if wanted("Filter_Capabilities") => out.filter_2_0(),
        Version::V2_0 => {}
        // The schema demands it, whatever is wanted.
        _ => out.filter_1_1(),
    }
    out.raw("</wfs:WFS_Capabilities>\n");
    out
}

impl Document {
    fn root(&mut self) {
        let wfs = self.version.dialect();
        let (ows, filter, filter_ns) = match self.version {
            Version::V2_0 => ("http://www.opengis.net/ows/1.1", "fes", "http://www.opengis.net/fes/2.0"),
            _ => ("http://www.opengis.net/ows", "ogc", "http://www.opengis.net/ogc"),
        };
        self.raw(&format!(
            "<wfs:WFS_Capabilities version=\"{0}\" xmlns:wfs=\"{1}\" xmlns:ows=\"{ows}\" xmlns:{filter}=\"{filter_ns}\" \
             xmlns:gml=\"{2}\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:{APP}=\"{APP_NS}\" xsi:schemaLocation=\"{1} {3}\">\n",
            wfs.number,
            wfs.ns,
            wfs.gml.ns(),
            wfs.schema
        ));
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
        self.element("ows:ServiceType", "WFS");
        Version::ALL.iter().for_each(|v| self.element("ows:ServiceTypeVersion", v.dialect().number));
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
                self.raw("<ows:OnlineResource");
                self.attribute("xlink:href", url);
                self.raw("/>");
            }
            self.raw("</ows:ContactInfo>");
        }
        self.raw("</ows:ServiceContact>\n</ows:ServiceProvider>\n");
    }

    fn operations_1_1(&mut self, href: &str, editable: bool) {
        let formats = Format::ALL.map(Format::name);
        let gml = Format::GML.map(Format::name);
        let versions = Version::ALL.map(|v| v.dialect().number);
        self.raw("<ows:OperationsMetadata>\n");
        self.operation(
            "GetCapabilities",
            href,
            &[("AcceptVersions", &versions), ("AcceptFormats", &["text/xml"]), ("Sections", &SECTIONS)],
            None,
        );
        self.operation("DescribeFeatureType", href, &[("outputFormat", &gml)], None);
        let result_type: &[&str] = &["results", "hits"];
        self.operation("GetFeature", href, &[("resultType", result_type), ("outputFormat", &formats)], None);
        self.operation("GetGmlObject", href, &[("outputFormat", &gml)], None);
        if editable {
            let gml_3_1 = [GmlVersion::V3_1.media_type()];
            let ids: &[&str] = &["GenerateNew", "UseExisting", "ReplaceDuplicate"];
            self.operation("Transaction", href, &[("inputFormat", &gml_3_1), ("idgen", ids)], None);
            self.operation("LockFeature", href, &[("lockAction", &LOCK_ACTIONS)], None);
            self.operation("GetFeatureWithLock", href, &[("resultType", &["results"]), ("outputFormat", &gml)], None);
        }
        self.raw("</ows:OperationsMetadata>\n");
    }

    fn operations_2_0(&mut self, href: &str, editable: bool, administers: bool, count_default: u64) {
        let formats = Format::ALL.map(Format::name);
        let gml = Format::GML.map(Format::name);
        let gml_3_2: &[&str] = &[GmlVersion::V3_2.media_type()];
        let versions = Version::ALL.map(|v| v.dialect().number);
        let count_default = count_default.to_string();
        self.raw("<ows:OperationsMetadata>\n");
        self.operation(
            "GetCapabilities",
            href,
            &[("AcceptVersions", &versions), ("AcceptFormats", &["text/xml"]), ("Sections", &SECTIONS)],
            None,
        );
        self.operation("DescribeFeatureType", href, &[("outputFormat", &gml)], None);
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
        self.operation("GetPropertyValue", href, &[("outputFormat", gml_3_2), ("resolve", resolve)], None);
        if editable {
            self.operation("Transaction", href, &[("inputFormat", gml_3_2)], None);
            self.operation("LockFeature", href, &[("lockAction", &LOCK_ACTIONS)], None);
            let parameters: &[(&str, &[&str])] =
                &[("outputFormat", &gml), ("resultType", &["results"]), ("resolve", resolve)];
            self.operation("GetFeatureWithLock", href, parameters, Some(&count_default));
        }
        self.parameter("version", &versions);
        self.constraint("ows", "ImplementsTransactionalWFS", truth(editable));
        self.constraint("ows", "ImplementsLockingWFS", truth(editable));
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
            self.raw(&format!("<ows:{method}"));
            self.attribute("xlink:href", href);
            self.raw("/>");
        }
        self.raw("</ows:HTTP></ows:DCP>");
        parameters.iter().for_each(|(name, values)| self.parameter(name, values));
        if let Some(count) = count_default {
            self.constraint("ows", "CountDefault", count);
        }
        self.raw("</ows:Operation>\n");
    }

    /// The values stand in a list of their own from OWS Common 1.1 on.
    fn parameter(&mut self, name: &str, values: &[&str]) {
        let (open, close) = match self.version {
            Version::V2_0 => ("<ows:AllowedValues>", "</ows:AllowedValues>"),
            _ => ("", ""),
        };
        self.raw(&format!("<ows:Parameter name=\"{name}\">{open}"));
        for value in values {
            self.raw("<ows:Value>");
            xml::text(&mut self.out, value);
            self.raw("</ows:Value>");
        }
        self.raw(&format!("{close}</ows:Parameter>\n"));
    }

    /// As OWS Common 1.1 has it.
    pub(super) fn constraint(&mut self, prefix: &str, name: &str, value: &str) {
        self.raw(&format!(
            "<{prefix}:Constraint name=\"{name}\"><ows:NoValues/><ows:DefaultValue>{value}</ows:DefaultValue></{prefix}:Constraint>\n"
        ));
    }

    fn feature_type(&mut self, Offered { ft, editable, bounds }: &Offered) {
        let version = self.version;
        // What 2.0 calls a CRS is an SRS before.
        let s = if version == Version::V2_0 { "CRS" } else { "SRS" };
        self.raw(&format!("<wfs:FeatureType xmlns:{APP}=\"{APP_NS}\"><wfs:Name>{APP}:{}</wfs:Name>\n", ft.name));
        self.element("wfs:Title", ft.title());
        self.element("wfs:Abstract", &ft.description);
        match ft.geometry {
            None => self.raw(&format!("<wfs:No{s}/>\n")),
            Some(_) => {
                let stored = stored_crs(ft);
                self.element(&format!("wfs:Default{s}"), &version.crs(stored).spelling);
                let mut other = |spelling: &str| self.element(&format!("wfs:Other{s}"), spelling);
                let others = [Crs::WGS84, Crs::WEB_MERCATOR].into_iter().filter(|crs| *crs != stored);
                others.for_each(|crs| other(&version.crs(crs).spelling));
                other("urn:ogc:def:crs:OGC:1.3:CRS84");
                other(&CrsRef::short(stored).spelling);
            }
        }
        if version == Version::V1_1 {
            self.raw("<wfs:Operations>");
            let writing: &[&str] = if *editable { &["Insert", "Update", "Delete", "Lock"] } else { &[] };
            ["Query", "GetGmlObject"].iter().chain(writing).for_each(|name| self.element("wfs:Operation", name));
            self.raw("</wfs:Operations>\n");
        }
        self.raw("<wfs:OutputFormats>");
        Format::ALL.iter().for_each(|f| self.element("wfs:Format", f.name()));
        self.raw("</wfs:OutputFormats>\n");
        if let Some(b) = bounds {
            self.raw("<ows:WGS84BoundingBox>");
            for (name, x, y) in [("ows:LowerCorner", b.min_x, b.min_y), ("ows:UpperCorner", b.max_x, b.max_y)] {
                self.raw(&format!("<{name}>"));
                self.number(x);
                self.raw(" ");
                self.number(y);
                self.raw(&format!("</{name}>"));
            }
            self.raw("</ows:WGS84BoundingBox>\n");
        }
        self.raw("</wfs:FeatureType>\n");
    }
}

pub(super) fn truth(holds: bool) -> &'static str {
    if holds { "TRUE" } else { "FALSE" }
}
