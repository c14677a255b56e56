//! Coordinate reference systems: how clients spell them, which axis comes first in each spelling, and how coordinates get
//! from one to another. Stored coordinates are always x,y (longitude, latitude; easting, northing).
//!
//! Owns the table of the CRS that are known: those two-dimensional ones of the EPSG registry for which [`Transform`] agrees with
//! PROJ (without grid files) to a millimetre in the area of use, or, where PROJ has several datum shifts for parts of it, with the
//! one for most of it. Any other is an unknown CRS, and said to be, rather than some metres off.

mod table;
mod transform;

use super::Rect;
pub use transform::Transform;

/// A CRS by its EPSG code. CRS84 is EPSG:4326 in x,y order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crs {
    epsg: u32,
}

impl Crs {
    pub const WGS84: Crs = Crs { epsg: 4326 };
    pub const WEB_MERCATOR: Crs = Crs { epsg: 3857 };

    /// `None`: not a known CRS.
    pub fn from_epsg(epsg: u32) -> Option<Crs> {
        table::find(epsg).map(|_| Crs { epsg })
    }

    /// Every known CRS, by code.
    pub fn all() -> impl Iterator<Item = Crs> {
        table::all().iter().map(|d| Crs { epsg: d.epsg })
    }

    pub fn epsg(self) -> u32 {
        self.epsg
    }

    /// The registry's name: `WGS 84 / UTM zone 32N`.
    pub fn name(self) -> &'static str {
        table::find(self.epsg).map_or("", |d| d.name)
    }

    /// The definition in ESRI's WKT; `None` where there is none.
    pub fn esri_wkt(self) -> Option<String> {
        table::esri_wkt(self.epsg)
    }

    /// Degrees on an ellipsoid, not metres on a plane.
    pub fn is_geographic(self) -> bool {
        table::find(self.epsg).is_some_and(|d| d.geographic)
    }

    /// The length of a unit of a projected CRS; `None` of degrees.
    pub fn metres_per_unit(self) -> Option<f64> {
        let definition = table::find(self.epsg).filter(|d| !d.geographic)?;
        definition.projection().map(proj4rs::Proj::to_meter)
    }

    /// True when the EPSG registry puts the northing (latitude) first.
    pub fn northing_first(self) -> bool {
        table::find(self.epsg).is_some_and(|d| d.northing_first)
    }

    /// The area of use in longitude and latitude of WGS 84. Where it crosses the antimeridian, `min_x > max_x`.
    pub fn area(self) -> Option<Rect> {
        table::find(self.epsg).map(table::Definition::area)
    }
}

/// How a client spelled a CRS, with the order of the coordinates that goes with that spelling.
/// The answer repeats the spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrsRef {
    pub crs: Crs,
    /// As it is to be echoed in `srsName` or `Content-Crs`.
    pub spelling: String,
    /// Coordinates in this spelling are y,x.
    pub swap: bool,
}

/// A spelling that names no CRS, or none that is known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a known CRS")]
pub struct UnknownCrs(pub String);

impl CrsRef {
    /// Reads every spelling that clients use. `EPSG:n` and `http://www.opengis.net/gml/srs/epsg.xml#n` are x,y by custom; the
    /// URNs and URIs of `EPSG` have the registry's axis order; the forms of CRS84 are longitude, latitude.
    ///
    /// WFS 1.0.0 has x,y whatever the spelling: see [`CrsRef::in_xy_order`].
    pub fn parse(text: &str) -> Result<CrsRef, UnknownCrs> {
        let unknown = || UnknownCrs(text.to_owned());
        let spelling = text.trim();
        let lower = spelling.to_ascii_lowercase();
        let (code, registry_order) = if is_crs84(&lower) {
            ("4326", false)
        } else if let Some(code) = lower.strip_prefix("epsg:") {
            (code, false)
        } else if let Some(urn) =
            lower.strip_prefix("urn:ogc:def:crs:epsg:").or(lower.strip_prefix("urn:x-ogc:def:crs:epsg:"))
        {
            (urn.split_once(':').map_or(urn, |(_version, code)| code), true)
        } else {
            let uri = lower.strip_prefix("http://").or(lower.strip_prefix("https://")).ok_or_else(unknown)?;
            let uri = uri.strip_prefix("www.").unwrap_or(uri);
            match uri.strip_prefix("opengis.net/gml/srs/epsg.xml#") {
                Some(code) => (code, false),
                None => {
                    let rest = uri.strip_prefix("opengis.net/def/crs/epsg/").ok_or_else(unknown)?;
                    (rest.split_once('/').ok_or_else(unknown)?.1, true)
                }
            }
        };
        let epsg = match code.parse().map_err(|_| unknown())? {
            // What Web Mercator was called before it had a code.
            900_913 => 3857,
            epsg => epsg,
        };
        let crs = Crs::from_epsg(epsg).ok_or_else(unknown)?;
        Ok(CrsRef { crs, spelling: spelling.to_owned(), swap: registry_order && crs.northing_first() })
    }

    /// The same spelling with coordinates in x,y order: the rule of WFS 1.0.0.
    pub fn in_xy_order(self) -> CrsRef {
        CrsRef { swap: false, ..self }
    }

    /// `http://www.opengis.net/def/crs/OGC/1.3/CRS84`: longitude, latitude of WGS 84.
    pub fn crs84() -> CrsRef {
        CrsRef { crs: Crs::WGS84, spelling: "http://www.opengis.net/def/crs/OGC/1.3/CRS84".into(), swap: false }
    }

    /// `EPSG:n`, x,y.
    pub fn short(crs: Crs) -> CrsRef {
        CrsRef { crs, spelling: format!("EPSG:{}", crs.epsg), swap: false }
    }

    /// `urn:ogc:def:crs:EPSG::n`, in the registry's axis order.
    pub fn urn(crs: Crs) -> CrsRef {
        CrsRef { crs, spelling: format!("urn:ogc:def:crs:EPSG::{}", crs.epsg), swap: crs.northing_first() }
    }

    /// `http://www.opengis.net/def/crs/EPSG/0/n`, in the registry's axis order.
    pub fn uri(crs: Crs) -> CrsRef {
        CrsRef {
            crs,
            spelling: format!("http://www.opengis.net/def/crs/EPSG/0/{}", crs.epsg),
            swap: crs.northing_first(),
        }
    }
}

fn is_crs84(lower: &str) -> bool {
    let named = matches!(lower, "crs:84" | "crs84" | "ogc:crs84");
    let urn = lower
        .strip_prefix("urn:ogc:def:crs:ogc:")
        .is_some_and(|rest| matches!(rest.split_once(':'), Some((_, "crs84" | "84" | "crs84h"))));
    let uri = (lower.strip_prefix("http://").or(lower.strip_prefix("https://")))
        .and_then(|rest| rest.strip_prefix("www.").unwrap_or(rest).strip_prefix("opengis.net/def/crs/ogc/"))
        .is_some_and(|rest| matches!(rest.split_once('/'), Some((_, "crs84" | "crs84h"))));
    named || urn || uri
}

#[cfg(test)]
mod tests;
