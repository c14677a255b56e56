//! The formats in which GetFeature answers.

use super::Version;
use super::exception::{Exception, Result};
use crate::format::gml::GmlVersion;

/// How features are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Gml(GmlVersion),
    GeoJson,
}

impl Format {
    pub const ALL: [Format; 4] =
        [Format::Gml(GmlVersion::V3_2), Format::Gml(GmlVersion::V3_1), Format::Gml(GmlVersion::V2), Format::GeoJson];

    /// What a request of `version` gets that names none.
    pub fn of(version: Version) -> Format {
        Format::Gml(version.dialect().gml)
    }

    /// The media type.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gml(gml) => gml.media_type(),
            Format::GeoJson => "application/json",
        }
    }

    /// Reads the names that clients use in requests of `version`. A `+` that nobody percent-encoded has become a blank on its
    /// way.
    pub fn parse(text: &str, version: Version) -> Result<Format> {
        let plain: String = text.chars().filter(|c| !c.is_whitespace() && *c != '+').collect();
        match plain.to_ascii_lowercase().as_str() {
            "application/gmlxml;version=3.2"
            | "text/xml;subtype=gml/3.2"
            | "text/xml;subtype=gml/3.2.1"
            | "gml32"
            | "gml3.2" => Ok(Format::Gml(GmlVersion::V3_2)),
            "application/gmlxml;version=3.1"
            | "text/xml;subtype=gml/3.1"
            | "text/xml;subtype=gml/3.1.1"
            | "gml3"
            | "gml31"
            | "gml3.1" => Ok(Format::Gml(GmlVersion::V3_1)),
            "application/gmlxml;version=2.1" | "text/xml;subtype=gml/2" | "text/xml;subtype=gml/2.1.2" | "gml2" => {
                Ok(Format::Gml(GmlVersion::V2))
            }
            "application/gmlxml" | "text/xml" | "application/xml" => Ok(Format::of(version)),
            "application/json" | "json" | "application/geojson" | "geojson" => Ok(Format::GeoJson),
            _ => {
                let names = Format::ALL.map(Format::name).join(", ");
                Err(Exception::invalid("outputFormat", format!("'{text}' is not offered, only {names}")))
            }
        }
    }
}
