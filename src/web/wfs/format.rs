//! The formats in which GetFeature answers.

use super::Version;
use super::exception::{Exception, Result};
use crate::format::file::FeatureFile;
use crate::format::gml::GmlVersion;
use crate::format::{flatgeobuf, geopackage, shapefile};

/// How features are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Gml(GmlVersion),
    GeoJson,
    Csv,
    Kml,
    FlatGeobuf,
    /// In a ZIP archive.
    Shapefile,
    GeoPackage,
}

impl Format {
    pub const GML: [Format; 3] =
        [Format::Gml(GmlVersion::V3_2), Format::Gml(GmlVersion::V3_1), Format::Gml(GmlVersion::V2)];
    pub const ALL: [Format; 9] = [
        Self::GML[0],
        Self::GML[1],
        Self::GML[2],
        Format::GeoJson,
        Format::Csv,
        Format::Kml,
        Format::FlatGeobuf,
        Format::Shapefile,
        Format::GeoPackage,
    ];

    /// What a request of `version` gets that names none.
    pub fn of(version: Version) -> Format {
        Format::Gml(version.dialect().gml)
    }

    /// The media type.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gml(gml) => gml.media_type(),
            Format::GeoJson => "application/json",
            Format::Csv => "text/csv",
            Format::Kml => "application/vnd.google-earth.kml+xml",
            Format::FlatGeobuf => flatgeobuf::MEDIA_TYPE,
            Format::Shapefile => "application/zip",
            Format::GeoPackage => geopackage::MEDIA_TYPE,
        }
    }

    /// What browsers are to save under a name that ends so, rather than show.
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Format::Gml(_) | Format::GeoJson => None,
            Format::Csv => Some("csv"),
            Format::Kml => Some("kml"),
            Format::FlatGeobuf => Some("fgb"),
            Format::Shapefile => Some("zip"),
            Format::GeoPackage => Some("gpkg"),
        }
    }

    /// Whether an answer tells how many features there are.
    pub fn tells_counts(self) -> bool {
        matches!(self, Format::Gml(GmlVersion::V3_2 | GmlVersion::V3_1) | Format::GeoJson)
    }

    /// Where the features are collected for an answer that is made as a whole; `None`: it streams.
    pub fn file(self) -> Option<Box<dyn FeatureFile>> {
        match self {
            Format::Shapefile => Some(Box::<shapefile::Archive>::default()),
            Format::GeoPackage => Some(Box::<geopackage::GeoPackage>::default()),
            _ => None,
        }
    }

    /// Whether an answer can lead to the next page. One that cannot is whole.
    pub fn pages(self) -> bool {
        matches!(self, Format::Gml(GmlVersion::V3_2) | Format::GeoJson)
    }

    /// Whether an answer has the features of one query alone.
    pub fn of_one_query(self) -> bool {
        matches!(self, Format::Csv | Format::FlatGeobuf)
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
            "text/csv" | "csv" => Ok(Format::Csv),
            "application/vnd.google-earth.kmlxml" | "application/vnd.google-earth.kml" | "kml" => Ok(Format::Kml),
            flatgeobuf::MEDIA_TYPE | "flatgeobuf" | "fgb" => Ok(Format::FlatGeobuf),
            "application/zip" | "application/x-zipped-shp" | "shape-zip" | "shapezip" | "shapefile" => {
                Ok(Format::Shapefile)
            }
            "application/geopackagesqlite3" | "application/x-gpkg" | "geopackage" | "geopkg" | "gpkg" => {
                Ok(Format::GeoPackage)
            }
            _ => {
                let names = Format::ALL.map(Format::name).join(", ");
                Err(Exception::invalid("outputFormat", format!("'{text}' is not offered, only {names}")))
            }
        }
    }
}
