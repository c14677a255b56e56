//! Geometries in the CRS of an answer, for formats whose files name it and keep coordinates in x,y order.

use super::gml::Selection;
use crate::model::crs::{Crs, Transform};
use crate::model::{Feature, FeatureType, Geometry, GeometryColumn, GeometryError};

/// What becomes of the geometries of one type.
pub struct Placed {
    /// `None`: the answer has none.
    pub column: Option<GeometryColumn>,
    pub crs: Crs,
    transform: Option<Transform>,
}

impl Placed {
    pub fn new(ft: &FeatureType, crs: Crs, selection: &Selection) -> Placed {
        let column = ft.geometry.filter(|_| selection.geometry);
        let stored = column.and_then(|g| Crs::from_epsg(g.epsg));
        Placed { column, crs, transform: stored.and_then(|stored| Transform::between(stored, crs)) }
    }

    /// The geometry of `feature` in the answer; an error when it has no place in the CRS.
    pub fn geometry(&self, feature: &Feature) -> Result<Option<Geometry>, GeometryError> {
        match (feature.geometry.as_ref().filter(|_| self.column.is_some()), &self.transform) {
            (Some(g), Some(transform)) => transform.geometry(g).map(Some),
            (g, _) => Ok(g.cloned()),
        }
    }
}
