//! Geometries in the CRS of an answer.

use std::borrow::Cow;

use super::gml::Selection;
use crate::model::crs::{Crs, Transform};
use crate::model::{Feature, FeatureType, Geometry, GeometryColumn, GeometryError};

/// What becomes of the geometries of one type in text: so many decimals as its answers have.
pub struct Shown {
    transform: Option<Transform>,
    decimals: Option<u8>,
}

impl Shown {
    pub fn new(ft: &FeatureType, crs: Crs) -> Shown {
        let stored = ft.geometry.and_then(|g| Crs::from_epsg(g.epsg));
        Shown { transform: stored.and_then(|stored| Transform::between(stored, crs)), decimals: ft.decimals }
    }

    /// One of the type's geometries in the answer, in x,y order; an error when it has no place in the CRS.
    pub fn geometry<'g>(&self, stored: &'g Geometry) -> Result<Cow<'g, Geometry>, GeometryError> {
        let placed = match &self.transform {
            None => Cow::Borrowed(stored),
            Some(transform) => Cow::Owned(transform.geometry(stored)?),
        };
        match self.decimals {
            None => Ok(placed),
            Some(decimals) => placed.rounded(decimals).map(Cow::Owned),
        }
    }
}

/// What becomes of them in files that name the CRS and keep coordinates as they are, in x,y order.
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
