//! Coordinates from one CRS to another.

use proj4rs::Proj;
use proj4rs::adaptors::transform_xy;

use super::{Crs, table};
use crate::model::{Geometry, GeometryError, Rect};

/// The radius of Web Mercator's sphere, metres.
const R: f64 = 6_378_137.0;

/// Takes coordinates from one CRS to another, x,y (easting, northing; longitude, latitude in degrees) in both.
///
/// Between a CRS of the table and WGS 84 it agrees with PROJ to a millimetre inside the CRS's area of use (see `generate.py`);
/// between two others it goes by way of WGS 84.
#[derive(Clone, Debug)]
pub struct Transform {
    from: Crs,
    to: Crs,
    method: Method,
}

#[derive(Clone, Copy)]
enum Method {
    ToWebMercator,
    FromWebMercator,
    Proj {
        from: &'static Proj,
        to: &'static Proj,
    },
    /// A definition of the table that is none; a test holds the table to have none.
    Unknown,
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Method::ToWebMercator | Method::FromWebMercator => "closed formula",
            Method::Proj { .. } => "proj4rs",
            Method::Unknown => "unknown",
        })
    }
}

impl Transform {
    /// `None` when nothing has to be done.
    pub fn between(from: Crs, to: Crs) -> Option<Transform> {
        let projection = |crs: Crs| table::find(crs.epsg).and_then(table::Definition::projection);
        let method = match (from, to) {
            _ if from == to => return None,
            (Crs::WGS84, Crs::WEB_MERCATOR) => Method::ToWebMercator,
            (Crs::WEB_MERCATOR, Crs::WGS84) => Method::FromWebMercator,
            _ => match (projection(from), projection(to)) {
                (Some(from), Some(to)) => Method::Proj { from, to },
                _ => Method::Unknown,
            },
        };
        Some(Transform { from, to, method })
    }

    /// Whether a box becomes a box, whose edges are those of the other.
    pub fn keeps_boxes(&self) -> bool {
        matches!(self.method, Method::ToWebMercator | Method::FromWebMercator)
    }

    pub fn geometry(&self, g: &Geometry) -> Result<Geometry, GeometryError> {
        g.map_xy(|x, y| self.point(x, y))
    }

    /// One point. What has no place in the CRS it is to go to is `OutsideCrs`.
    pub fn point(&self, x: f64, y: f64) -> Result<(f64, f64), GeometryError> {
        let outside = GeometryError::OutsideCrs { x, y };
        let (to_x, to_y) = match self.method {
            Method::ToWebMercator if y.abs() < 90.0 => (x.to_radians() * R, y.to_radians().tan().asinh() * R),
            Method::FromWebMercator => ((x / R).to_degrees(), (y / R).sinh().atan().to_degrees()),
            Method::Proj { from, to } => {
                // proj4rs has angles in radians.
                let (x, y) = if from.is_latlong() { (x.to_radians(), y.to_radians()) } else { (x, y) };
                let (x, y) = transform_xy(from, to, x, y).map_err(|_| outside.clone())?;
                if to.is_latlong() { (x.to_degrees(), y.to_degrees()) } else { (x, y) }
            }
            Method::ToWebMercator | Method::Unknown => return Err(outside),
        };
        if to_x.is_finite() && to_y.is_finite() { Ok((to_x, to_y)) } else { Err(outside) }
    }

    /// A box that has in it whatever is inside `r`. Edges bend, so each is followed in 20 steps; a box that reaches to where
    /// the other CRS has no coordinates becomes boundless, for the caller to hold against what there is.
    pub fn rect(&self, r: Rect) -> Result<Rect, GeometryError> {
        const STEPS: u32 = 20;
        const BOUNDLESS: Rect = Rect { min_x: f64::MIN, min_y: f64::MIN, max_x: f64::MAX, max_y: f64::MAX };
        let mut found: Option<Rect> = None;
        for step in 0..=STEPS {
            let f = f64::from(step) / f64::from(STEPS);
            let (x, y) = (r.min_x + f * (r.max_x - r.min_x), r.min_y + f * (r.max_y - r.min_y));
            for (x, y) in [(x, r.min_y), (x, r.max_y), (r.min_x, y), (r.max_x, y)] {
                let Ok((x, y)) = self.point(x, y) else { return Ok(BOUNDLESS) };
                let at = Rect { min_x: x, min_y: y, max_x: x, max_y: y };
                found = Some(found.map_or(at, |rect| rect.union(&at)));
            }
        }
        let mut rect = found.unwrap_or(BOUNDLESS);
        if self.from.is_geographic() && !self.to.is_geographic() && !self.inside_area(r) {
            return Ok(BOUNDLESS);
        }
        if self.to.is_geographic() && !self.from.is_geographic() {
            self.mend_poles(r, &mut rect);
        }
        Ok(rect)
    }

    /// Whether a box in longitude and latitude stays within a tenth of the globe of the other CRS's area of use: further away,
    /// projections fold over themselves.
    fn inside_area(&self, r: Rect) -> bool {
        const MARGIN: f64 = 18.0;
        let Some(mut area) = self.to.area() else { return false };
        if area.min_x > area.max_x {
            let shift = if r.min_x < area.max_x + MARGIN { -360.0 } else { 0.0 };
            (area.min_x, area.max_x) = (area.min_x + shift, area.max_x + shift + 360.0);
        }
        let whole_circle = area.max_x - area.min_x >= 360.0;
        let inside_x = whole_circle || (r.min_x >= area.min_x - MARGIN && r.max_x <= area.max_x + MARGIN);
        inside_x && r.min_y >= area.min_y - MARGIN && r.max_y <= area.max_y + MARGIN
    }

    /// A box of the plane that has a pole in it has all longitudes in it, and that pole's latitude on no edge. One that lies
    /// across the antimeridian has longitudes of both signs, whose box is the whole circle.
    fn mend_poles(&self, r: Rect, rect: &mut Rect) {
        let back = Transform::between(self.to, self.from);
        let has_pole = |latitude: f64| {
            let pole = back.as_ref().and_then(|t| t.point(0.0, latitude).ok());
            pole.is_some_and(|(x, y)| r.min_x <= x && x <= r.max_x && r.min_y <= y && y <= r.max_y)
        };
        for latitude in [-90.0, 90.0] {
            if has_pole(latitude) {
                let all = Rect { min_x: -180.0, min_y: latitude, max_x: 180.0, max_y: latitude };
                *rect = rect.union(&all);
            }
        }
        if rect.max_x - rect.min_x > 180.0 {
            (rect.min_x, rect.max_x) = (rect.min_x.min(-180.0), rect.max_x.max(180.0));
        }
    }
}
