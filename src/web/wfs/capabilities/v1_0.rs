//! Capabilities as WFS 1.0.0, 12.3 and WFS-capabilities.xsd have them.

use super::{Contents, Document, Offered};
use crate::format::gml::{APP, APP_NS};
use crate::format::xml;
use crate::model::crs::CrsRef;
use crate::web::wfs::OLD_WFS_NS;
use crate::web::wfs::query::stored_crs;

pub(super) fn document(contents: &Contents<'_>) -> Document {
    let mut out = Document::new(contents.version);
    let href = contents.ask.href();
    out.raw(&format!(
        "<WFS_Capabilities version=\"1.0.0\" xmlns=\"{OLD_WFS_NS}\" xmlns:ogc=\"http://www.opengis.net/ogc\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:{APP}=\"{APP_NS}\" \
         xsi:schemaLocation=\"{OLD_WFS_NS} http://schemas.opengis.net/wfs/1.0.0/WFS-capabilities.xsd\">\n"
    ));
    out.service(contents, &href);
    out.raw("<Capability><Request>\n");
    out.request("GetCapabilities", "", &["Get", "Post"], &href);
    out.request(
        "DescribeFeatureType",
        "<SchemaDescriptionLanguage><XMLSCHEMA/></SchemaDescriptionLanguage>",
        &["Get", "Post"],
        &href,
    );
    // The schema has no element for another format; they are there all the same.
    out.request("GetFeature", "<ResultFormat><GML2/></ResultFormat>", &["Get", "Post"], &href);
    if contents.editable {
        out.request("Transaction", "", &["Post"], &href);
        out.request("LockFeature", "", &["Get", "Post"], &href);
        out.request("GetFeatureWithLock", "<ResultFormat><GML2/></ResultFormat>", &["Get", "Post"], &href);
    }
    out.raw("</Request></Capability>\n<FeatureTypeList>\n<Operations><Query/></Operations>\n");
    contents.types.iter().for_each(|offered| out.old_feature_type(offered));
    out.raw("</FeatureTypeList>\n");
    out.filter_1_0();
    out.raw("</WFS_Capabilities>\n");
    out
}

impl Document {
    fn service(&mut self, contents: &Contents<'_>, href: &str) {
        let service = &contents.ask.web.service;
        self.raw("<Service>\n<Name>WFS</Name>\n<Title>");
        xml::text(&mut self.out, &service.title);
        self.raw("</Title>\n");
        self.element("Abstract", &service.description);
        self.element("Keywords", &service.keywords.join(", "));
        self.element("OnlineResource", href);
        self.element("Fees", &service.fees);
        self.element("AccessConstraints", &service.access_constraints);
        self.raw("</Service>\n");
    }

    fn request(&mut self, name: &str, what: &str, methods: &[&str], href: &str) {
        self.raw(&format!("<{name}>{what}"));
        for method in methods {
            self.raw(&format!("<DCPType><HTTP><{method}"));
            self.attribute("onlineResource", href);
            self.raw("/></HTTP></DCPType>");
        }
        self.raw(&format!("</{name}>\n"));
    }

    fn old_feature_type(&mut self, Offered { ft, editable, bounds }: &Offered) {
        self.raw(&format!("<FeatureType xmlns:{APP}=\"{APP_NS}\"><Name>{APP}:{}</Name>\n", ft.name));
        self.element("Title", ft.title());
        self.element("Abstract", &ft.description);
        // The schema demands one of a type without geometry too.
        self.element("SRS", &CrsRef::short(stored_crs(ft)).spelling);
        let write = if *editable { "<Insert/><Update/><Delete/><Lock/>" } else { "" };
        self.raw(&format!("<Operations><Query/>{write}</Operations>\n"));
        if let Some(b) = bounds {
            // In degrees, as its name has it and clients take it, although the schema's comment says the type's own CRS.
            self.raw("<LatLongBoundingBox");
            for (name, n) in [("minx", b.min_x), ("miny", b.min_y), ("maxx", b.max_x), ("maxy", b.max_y)] {
                self.raw(&format!(" {name}=\""));
                self.number(n);
                self.raw("\"");
            }
            self.raw("/>\n");
        }
        self.raw("</FeatureType>\n");
    }
}
