//! The versions of WFS, and what differs between them as far as it can be said in a word: names, namespaces, the spelling of a
//! CRS. Documents of another shape altogether (capabilities, exception reports, what a Transaction did) say so where they are
//! written.

use super::exception::{Exception, Result};
use crate::format::gml::GmlVersion;
use crate::model::crs::{Crs, CrsRef};

/// The namespaces of WFS 2.0, and of the versions before it.
pub const WFS_NS: &str = "http://www.opengis.net/wfs/2.0";
pub const OLD_WFS_NS: &str = "http://www.opengis.net/wfs";

/// The version that a request is written in, which is not that of the layer it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1_0,
    V1_1,
    V2_0,
}

/// What the documents of a version are made of.
pub struct Dialect {
    /// `2.0.0`.
    pub number: &'static str,
    pub ns: &'static str,
    /// Where the schema of its FeatureCollection is.
    pub schema: &'static str,
    /// Of its features, unless others are asked for.
    pub gml: GmlVersion,
    /// The parameter that names feature types.
    pub type_names: &'static str,
    /// Whether an answer can lead to the next one: if not, nothing cuts it short but the client's own wish.
    pub pages: bool,
}

static DIALECT_1_0: Dialect = Dialect {
    number: "1.0.0",
    ns: OLD_WFS_NS,
    schema: "http://schemas.opengis.net/wfs/1.0.0/WFS-basic.xsd",
    gml: GmlVersion::V2,
    type_names: "typeName",
    pages: false,
};

static DIALECT_1_1: Dialect = Dialect {
    number: "1.1.0",
    ns: OLD_WFS_NS,
    schema: "http://schemas.opengis.net/wfs/1.1.0/wfs.xsd",
    gml: GmlVersion::V3_1,
    type_names: "typeName",
    pages: false,
};

static DIALECT_2_0: Dialect = Dialect {
    number: "2.0.0",
    ns: WFS_NS,
    schema: "http://schemas.opengis.net/wfs/2.0/wfs.xsd",
    gml: GmlVersion::V3_2,
    type_names: "typeNames",
    pages: true,
};

impl Version {
    /// The highest first.
    pub const ALL: [Version; 3] = [Version::V2_0, Version::V1_1, Version::V1_0];

    /// 2.0.2 is 2.0.0 with corrections.
    pub fn parse(text: &str) -> Option<Version> {
        match text.trim() {
            "1.0.0" | "1.0" => Some(Version::V1_0),
            "1.1.0" | "1.1" => Some(Version::V1_1),
            t if t == "2" || t.starts_with("2.0") => Some(Version::V2_0),
            _ => None,
        }
    }

    /// The one in which a request for `text` is answered by the rules of the old negotiation: itself, or the highest below it,
    /// or the lowest of all (WFS 1.0.0, 6.2.4). `None`: no number.
    pub fn nearest(text: &str) -> Option<Version> {
        let mut parts = text.trim().split('.').map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next()??, parts.next().unwrap_or(Some(0))?);
        parts.all(|part| part.is_some()).then_some(match (major, minor) {
            (2.., _) => Version::V2_0,
            (1, 1..) => Version::V1_1,
            _ => Version::V1_0,
        })
    }

    /// Of a document with its root in the namespace `ns`, which counts for more than what it calls itself: GDAL's
    /// transactions are of 1.1 in all but that.
    pub fn of_document(ns: &str, asked: Option<&str>) -> Result<Version> {
        let version = asked.map(|text| Version::parse(text).ok_or_else(|| unknown(text))).transpose()?;
        Ok(match (ns == OLD_WFS_NS, version) {
            (true, Some(Version::V1_0)) => Version::V1_0,
            (true, _) => Version::V1_1,
            (false, _) => Version::V2_0,
        })
    }

    /// The one whose features are of `gml`: only in its FeatureCollection does a schema allow them.
    pub fn of_gml(gml: GmlVersion) -> Version {
        match gml {
            GmlVersion::V2 => Version::V1_0,
            GmlVersion::V3_1 => Version::V1_1,
            GmlVersion::V3_2 => Version::V2_0,
        }
    }

    pub fn dialect(self) -> &'static Dialect {
        match self {
            Version::V1_0 => &DIALECT_1_0,
            Version::V1_1 => &DIALECT_1_1,
            Version::V2_0 => &DIALECT_2_0,
        }
    }

    /// Whether coordinates are x,y whatever the spelling of their CRS.
    pub fn always_xy(self) -> bool {
        self == Version::V1_0
    }

    /// The CRS `crs` as the version spells it where the client does not.
    pub fn crs(self, crs: Crs) -> CrsRef {
        match self {
            Version::V1_0 => CrsRef::short(crs),
            Version::V1_1 | Version::V2_0 => CrsRef::urn(crs),
        }
    }
}

/// A version that is not offered.
pub fn unknown(text: &str) -> Exception {
    let offered = Version::ALL.map(|v| v.dialect().number).join(", ");
    Exception::invalid("version", format!("version '{text}' is not offered, only {offered}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_version_answers() {
        for (asked, version) in [
            ("1.0.0", Version::V1_0),
            ("0.0.14", Version::V1_0),
            ("1.0.5", Version::V1_0),
            ("1.1.0", Version::V1_1),
            ("1.9", Version::V1_1),
            ("2.0.2", Version::V2_0),
            ("100.0.0", Version::V2_0),
        ] {
            assert_eq!(Version::nearest(asked), Some(version), "{asked}");
        }
        for wrong in ["", "x", "1.x", "1.1.x", "-1.0.0"] {
            assert_eq!(Version::nearest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_document_is_of_its_namespace() {
        let of = |ns, asked| Version::of_document(ns, asked).ok();
        assert_eq!(of(OLD_WFS_NS, Some("1.0.0")), Some(Version::V1_0));
        assert_eq!(of(OLD_WFS_NS, None), Some(Version::V1_1));
        assert_eq!(of(OLD_WFS_NS, Some("2.0.0")), Some(Version::V1_1));
        assert_eq!(of(WFS_NS, None), Some(Version::V2_0));
        assert_eq!(of(WFS_NS, Some("9")), None);
    }
}
