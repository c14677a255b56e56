//! Temporal operators between a date or date-time property and a GML instant or period, or another property.

use super::comparison::value_of;
use super::{Context, FesError, Reference, is_reference};
use crate::format::xml::Element;
use crate::model::{PropertyType, Value};
use crate::query::filter::{Filter, Operand};
use crate::query::temporal::{Period, relation};

impl Context<'_> {
    pub(super) fn temporal(&self, e: &Element) -> Result<Filter, FesError> {
        let [property, time] = &e.children[..] else {
            return Err(FesError::parsing(e, "needs a property and a time"));
        };
        let Some((slot, kind)) = self.time_property(property)? else {
            return Err(FesError::not_supported(property, "the property stands first in temporal operators"));
        };
        let time = match self.time_property(time)? {
            Some((other, _)) => Period::instant(Operand::Property(other)),
            None => {
                let (begin, end) = period(time, kind)?;
                Period { begin: Some(Operand::Literal(begin)), end: Some(Operand::Literal(end)) }
            }
        };
        relation(&e.local.to_ascii_lowercase(), &Period::instant(Operand::Property(slot)), &time)
            .ok_or_else(|| FesError::not_supported(e, format!("the operator '{}' is not supported", e.local)))
    }

    /// The property that a reference means, and its type; `None`: `e` is no reference.
    fn time_property(&self, e: &Element) -> Result<Option<(usize, PropertyType)>, FesError> {
        let name = e.trimmed();
        if !is_reference(e) {
            return Ok(None);
        }
        let Reference::Property(slot) = self.reference(e)? else {
            return Err(FesError::invalid(name, format!("'{name}' is not a time")));
        };
        match self.ft.properties[slot].kind {
            kind @ (PropertyType::Date | PropertyType::DateTime) => Ok(Some((slot, kind))),
            kind => Err(FesError::invalid(name, format!("'{name}' is of type {}", kind.name()))),
        }
    }
}

/// Both ends of an instant or a period.
fn period(e: &Element, kind: PropertyType) -> Result<(Value, Value), FesError> {
    let instant = |e: &Element| {
        let text = e.trimmed();
        value_of(text, kind).map_err(|what| FesError::invalid(text, format!("line {}: {what}", e.line)))
    };
    let end_of = |position: &str, instant_in: &str| {
        let nested = || e.child(instant_in)?.child("TimeInstant")?.child("timePosition");
        let at = e.child(position).or_else(nested).ok_or_else(|| FesError::parsing(e, format!("has no {position}")))?;
        instant(at)
    };
    match &*e.local {
        "Literal" => match e.children.first() {
            Some(inner) => period(inner, kind),
            None => instant(e).map(|t| (t.clone(), t)),
        },
        "TimeInstant" => {
            let position = e.child("timePosition").ok_or_else(|| FesError::parsing(e, "has no timePosition"))?;
            instant(position).map(|t| (t.clone(), t))
        }
        "TimePeriod" => Ok((end_of("beginPosition", "begin")?, end_of("endPosition", "end")?)),
        _ => Err(FesError::parsing(e, "a TimeInstant or TimePeriod is expected here")),
    }
}
