//! A box in another CRS than the features'. On their plane its edges are no straight lines, and far from the plane's area of use
//! they are nowhere, so it is the geometries that are taken to the box, as an answer in its CRS shows them.

use std::sync::Arc;

use super::evaluate::intersects_box;
use super::filter::Filter;
use crate::model::crs::{Crs, Transform};
use crate::model::{Geometry, GeometryError, Rect};

#[derive(Clone, Debug)]
pub struct ForeignBox {
    rect: Rect,
    /// From the features' CRS to the box's.
    there: Transform,
    /// In the features' CRS, around all that is in the box.
    around: Rect,
}

impl ForeignBox {
    /// Selects the geometries of CRS `own` that meet `rect`, which is x,y of `crs` and does not cross the antimeridian. What
    /// lies on its edges does, whatever is rounded on the way.
    pub fn filter(rect: Rect, crs: Crs, own: Crs) -> Result<Filter, GeometryError> {
        let (Some(here), Some(there)) = (Transform::between(crs, own), Transform::between(own, crs)) else {
            return Ok(Filter::Bbox(rect));
        };
        let around = with_a_hair(here.rect(without_poles(rect, crs))?, own);
        if here.keeps_boxes() {
            return Ok(Filter::Bbox(around));
        }
        Ok(Filter::ForeignBox(Arc::new(ForeignBox { rect: with_a_hair(rect, crs), there, around })))
    }

    pub fn holds(&self, geometry: &Geometry) -> bool {
        // What has no place in the box's CRS is not in the box.
        let shown = |g: &Geometry| self.there.geometry(g).ok();
        geometry.bounds().is_some_and(|b| b.intersects(&self.around))
            && shown(geometry).is_some_and(|g| intersects_box(&g, &self.rect))
    }

    /// In the features' CRS: nothing outside of it is in the box.
    pub fn bounds(&self) -> Rect {
        self.around
    }
}

/// A tenth of a millimetre more on each side.
fn with_a_hair(r: Rect, crs: Crs) -> Rect {
    let hair = if crs.is_geographic() { 1e-9 } else { 1e-4 };
    Rect { min_x: r.min_x - hair, min_y: r.min_y - hair, max_x: r.max_x + hair, max_y: r.max_y + hair }
}

/// The poles have no place on most planes.
fn without_poles(r: Rect, crs: Crs) -> Rect {
    const EDGE: f64 = 89.999;
    if !crs.is_geographic() {
        return r;
    }
    Rect { min_y: r.min_y.clamp(-EDGE, EDGE), max_y: r.max_y.clamp(-EDGE, EDGE), ..r }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Feature;
    use crate::query::evaluate::matches;
    use crate::query::sample::aurora;

    fn at((x, y): (f64, f64)) -> Feature {
        Feature { geometry: Geometry::point(x, y).ok(), ..aurora() }
    }

    fn rect([min_x, min_y, max_x, max_y]: [f64; 4]) -> Rect {
        Rect { min_x, min_y, max_x, max_y }
    }

    #[test]
    fn a_box_has_the_edges_that_it_has_in_its_own_crs() {
        let utm = Crs::from_epsg(25832).unwrap();
        let selects = |edges, longitude, latitude| {
            let there = Transform::between(Crs::WGS84, utm).unwrap().point(longitude, latitude).unwrap();
            matches(&ForeignBox::filter(rect(edges), Crs::WGS84, utm).unwrap(), &at(there))
        };
        assert!(selects([11.9, 50.0, 12.0, 50.1], 11.9, 50.0) && selects([11.8, 49.9, 11.9, 50.0], 11.9, 50.0));
        // The parallel bends on the plane: a box around this one has the point, which is south of it.
        assert!(!selects([6.0, 50.001, 12.0, 51.0], 11.9, 50.0));
        assert!(selects([-180.0, -90.0, 180.0, 90.0], 11.9, 50.0));
        for far in [[-80.0, -5.0, -70.0, 5.0], [177.0, 65.0, 180.0, 70.0], [-180.0, 85.0, 180.0, 90.0]] {
            assert!(!selects(far, 11.9, 50.0) && !selects(far, 8.2, 4.8), "{far:?}");
        }
    }

    #[test]
    fn what_lies_on_an_edge_is_in_the_box() {
        // As a client rounds longitudes from 2 to 7, latitudes from 48 to 51.
        let edges = [222_638.981_586_5, 6_106_854.834_885_1, 779_236.435_552_9, 6_621_293.722_740_2];
        let filter = ForeignBox::filter(rect(edges), Crs::WEB_MERCATOR, Crs::WGS84).unwrap();
        assert!(matches!(filter, Filter::Bbox(_)), "the delegates can look such a box up");
        assert!(matches(&filter, &at((2.0, 48.0))) && matches(&filter, &at((7.0, 51.0))));
        assert!(!matches(&filter, &at((7.000_001, 51.0))));
    }
}
