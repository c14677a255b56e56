//! Spatial operators.

use std::sync::Arc;

use super::{Code, Context, FesError, Reference};
use crate::format::gml::{is_geometry, read_envelope, read_geometry};
use crate::format::xml::Element;
use crate::model::crs::Crs;
use crate::query::distance::{Measure, Near};
use crate::query::filter::{Filter, SpatialLiteral, SpatialOp};

impl Context<'_> {
    pub(super) fn bbox(&self, e: &Element) -> Result<Filter, FesError> {
        let (_, envelope) = self.spatial_operands(e)?;
        if !matches!(&*envelope.local, "Envelope" | "Box") {
            return Err(FesError::parsing(envelope, "an Envelope is expected here"));
        }
        Ok(Filter::Bbox(read_envelope(envelope, self.axes)?))
    }

    pub(super) fn spatial(&self, e: &Element) -> Result<Filter, FesError> {
        let (literal_first, geometry) = self.spatial_operands(e)?;
        let op = spatial_op(&e.local, literal_first);
        let literal = SpatialLiteral::new(read_geometry(geometry, self.axes)?);
        Ok(Filter::Spatial { op, literal: Arc::new(literal) })
    }

    /// FES 2.0, 7.8.3.3: DWithin and Beyond. In degrees of latitude and longitude a length in metres is a geodesic's.
    pub(super) fn distance(&self, e: &Element) -> Result<Filter, FesError> {
        let (_, geometry) = self.spatial_operands(e)?;
        let (limit, measure) = self.limit(e)?;
        let near = Filter::Near(Arc::new(Near::new(read_geometry(geometry, self.axes)?, limit, measure)));
        Ok(if &*e.local == "DWithin" { near } else { Filter::Not(Box::new(near)) })
    }

    /// The `Distance` of an operator, as it is measured in the stored CRS.
    pub(super) fn limit(&self, e: &Element) -> Result<(f64, Measure), FesError> {
        let distance = e.child("Distance").ok_or_else(|| FesError::parsing(e, "has no Distance"))?;
        let number = distance.trimmed().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
        let number =
            number.ok_or_else(|| FesError::parsing(distance, format!("'{}' is not a distance", distance.trimmed())))?;
        let unit = distance.attribute("uom").or(distance.attribute("units")).unwrap_or_default();
        measured(number, unit, self.axes.target).map_err(|what| {
            FesError::new(Code::InvalidParameterValue, "uom", format!("line {}: {what}", distance.line))
        })
    }

    /// The geometry of a spatial operator, and whether it stands before the property. The property may be missing.
    fn spatial_operands<'e>(&self, e: &'e Element) -> Result<(bool, &'e Element), FesError> {
        if self.ft.geometry.is_none() {
            return Err(FesError::invalid(&e.local, format!("feature type '{}' has no geometry", self.ft.name)));
        }
        let mut literal = None;
        let mut literal_first = false;
        for (i, operand) in e.children.iter().enumerate() {
            match &*operand.local {
                "ValueReference" | "PropertyName" => match self.reference(operand)? {
                    Reference::Geometry | Reference::BoundedBy => {}
                    _ => {
                        let name = operand.trimmed();
                        return Err(FesError::invalid(name, format!("{}: '{name}' is not a geometry", e.local)));
                    }
                },
                "Literal" if operand.children.len() == 1 => {
                    (literal, literal_first) = (operand.children.first(), i == 0);
                }
                local if is_geometry(local) => (literal, literal_first) = (Some(operand), i == 0),
                "Distance" => {}
                "Function" => return Err(FesError::not_supported(operand, "functions are not supported")),
                _ => return Err(FesError::parsing(operand, format!("is no operand of {}", e.local))),
            }
        }
        // Without a property the geometry is the only operand and stands on the right.
        let literal = literal.ok_or_else(|| FesError::parsing(e, "needs a geometry"))?;
        Ok((literal_first && e.children.len() > 1, literal))
    }
}

/// The operator of this name, with its operands the other way round where they are `swapped`.
pub(super) fn spatial_op(name: &str, swapped: bool) -> SpatialOp {
    match (name, swapped) {
        ("Within", false) | ("Contains", true) => SpatialOp::Within,
        ("Contains", false) | ("Within", true) => SpatialOp::Contains,
        ("Disjoint", _) => SpatialOp::Disjoint,
        ("Touches", _) => SpatialOp::Touches,
        ("Crosses", _) => SpatialOp::Crosses,
        ("Overlaps", _) => SpatialOp::Overlaps,
        ("Equals", _) => SpatialOp::Equals,
        _ => SpatialOp::Intersects,
    }
}

/// A distance as it is measured in a CRS. Without a unit it is in the CRS's own.
pub fn measured(number: f64, unit: &str, crs: Crs) -> Result<(f64, Measure), String> {
    let unit = unit.trim();
    // The code of EPSG's registry, or a name, in whatever form of URN or URI.
    let name = unit.rsplit([':', '/', '#']).next().unwrap_or(unit).to_ascii_lowercase();
    let metres = match &*name {
        "" | "deg" | "degree" | "degrees" | "9102" | "9122" => None,
        "m" | "metre" | "metres" | "meter" | "meters" | "9001" => Some(1.0),
        "km" | "kilometre" | "kilometres" | "kilometer" | "kilometers" | "9036" => Some(1000.0),
        "ft" | "foot" | "feet" | "[ft_i]" | "9002" => Some(0.3048),
        "mi" | "mile" | "miles" | "statute miles" | "[mi_i]" | "9093" => Some(1609.344),
        "nm" | "nmi" | "nautical mile" | "nautical miles" | "[nmi_i]" | "9030" => Some(1852.0),
        _ => return Err(format!("the unit '{unit}' is not known here (m, km, ft, mi, nmi, degree)")),
    };
    match (metres, crs.metres_per_unit()) {
        (Some(metres), None) => Ok((number * metres, Measure::Globe)),
        (Some(metres), Some(of_crs)) => Ok((number * metres / of_crs, Measure::Plane)),
        (None, None) => Ok((number, Measure::Plane)),
        (None, Some(_)) if name.is_empty() => Ok((number, Measure::Plane)),
        (None, Some(_)) => Err(format!("EPSG:{} has no degrees", crs.epsg())),
    }
}
