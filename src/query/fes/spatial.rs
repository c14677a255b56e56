//! Spatial operators.

use std::sync::Arc;

use super::{Context, FesError, Reference};
use crate::format::gml::{is_geometry, read_envelope, read_geometry};
use crate::format::xml::Element;
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
        let op = match (&*e.local, literal_first) {
            ("Within", false) | ("Contains", true) => SpatialOp::Within,
            ("Contains", false) | ("Within", true) => SpatialOp::Contains,
            ("Disjoint", _) => SpatialOp::Disjoint,
            ("Touches", _) => SpatialOp::Touches,
            ("Crosses", _) => SpatialOp::Crosses,
            ("Overlaps", _) => SpatialOp::Overlaps,
            ("Equals", _) => SpatialOp::Equals,
            _ => SpatialOp::Intersects,
        };
        let literal = SpatialLiteral::new(read_geometry(geometry, self.axes)?);
        Ok(Filter::Spatial { op, literal: Arc::new(literal) })
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
                "Function" => return Err(FesError::not_supported(operand, "functions are not supported")),
                _ => return Err(FesError::parsing(operand, format!("is no operand of {}", e.local))),
            }
        }
        // Without a property the geometry is the only operand and stands on the right.
        let literal = literal.ok_or_else(|| FesError::parsing(e, "needs a geometry"))?;
        Ok((literal_first && e.children.len() > 1, literal))
    }
}
