//! Coordinate reference systems: how clients spell them, which axis comes first in each spelling, and how coordinates get
//! from one to another. Stored coordinates are always x,y (longitude, latitude; easting, northing).

use super::{Geometry, GeometryError, Rect};

/// A CRS by its EPSG code. CRS84 is EPSG:4326 in x,y order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crs {
    epsg: u32,
}

impl Crs {
    pub const WGS84: Crs = Crs { epsg: 4326 };
    pub const WEB_MERCATOR: Crs = Crs { epsg: 3857 };

    pub fn from_epsg(epsg: u32) -> Option<Crs> {
        matches!(epsg, 4326 | 3857).then_some(Crs { epsg })
    }

    pub fn epsg(self) -> u32 {
        self.epsg
    }

    /// Degrees on an ellipsoid, not metres on a plane.
    pub fn is_geographic(self) -> bool {
        self.epsg == 4326
    }

    /// True when the EPSG registry puts the northing (latitude) first.
    pub fn northing_first(self) -> bool {
        self.epsg == 4326
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

/// Takes coordinates (x,y in both) from one CRS to another.
#[derive(Clone, Debug)]
pub struct Transform {
    from: Crs,
    to: Crs,
}

impl Transform {
    /// `None` when nothing has to be done.
    pub fn between(from: Crs, to: Crs) -> Option<Transform> {
        (from != to).then_some(Transform { from, to })
    }

    pub fn geometry(&self, g: &Geometry) -> Result<Geometry, GeometryError> {
        g.map_xy(|x, y| self.point(x, y))
    }

    /// The envelope of a transformed box.
    pub fn rect(&self, r: Rect) -> Result<Rect, GeometryError> {
        let (x0, y0) = self.point(r.min_x, r.min_y)?;
        let (x1, y1) = self.point(r.max_x, r.max_y)?;
        Ok(Rect { min_x: x0.min(x1), min_y: y0.min(y1), max_x: x0.max(x1), max_y: y0.max(y1) })
    }

    pub fn point(&self, x: f64, y: f64) -> Result<(f64, f64), GeometryError> {
        const R: f64 = 6_378_137.0;
        match (self.from.epsg, self.to.epsg) {
            (4326, 3857) if y.abs() < 90.0 => {
                Ok((x.to_radians() * R, (std::f64::consts::FRAC_PI_4 + y.to_radians() / 2.0).tan().ln() * R))
            }
            (3857, 4326) => {
                Ok(((x / R).to_degrees(), (2.0 * (y / R).exp().atan() - std::f64::consts::FRAC_PI_2).to_degrees()))
            }
            _ => Err(GeometryError::OutsideCrs { x, y }),
        }
    }
}
