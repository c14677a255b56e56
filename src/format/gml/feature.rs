//! Features and property values read from XML.

use super::read::{Axes, GmlError, error, is_geometry, read_geometry};
use super::{APP_NS, Standard};
use crate::format::xml::Element;
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureType, Geometry, PropertyType, Value};

/// What an element says about a feature's property.
#[derive(Clone, Debug, PartialEq)]
pub enum PropertyValue {
    Geometry(Option<Geometry>),
    /// The property's id and its value.
    Property(usize, Value),
}

/// Reads the content of `element` as the value of the geometry (`slot` `None`) or of a property of `ft`. The geometry may
/// stand there bare or in an element of the property's name; no content and `xsi:nil` are null, but for text, of which
/// `empty_text` says what an element without content means.
pub fn read_property(
    element: &Element,
    ft: &FeatureType,
    slot: Option<usize>,
    axes: &Axes,
    empty_text: Value,
) -> Result<PropertyValue, GmlError> {
    let nil = element.attribute("nil").is_some_and(|v| matches!(v.trim(), "true" | "1"));
    let Some(slot) = slot else {
        let mut at = element;
        if let [wrapper] = &element.children[..]
            && !is_geometry(&wrapper.local)
            && &*wrapper.local == GEOMETRY
        {
            at = wrapper;
        }
        return match &at.children[..] {
            [] if at.trimmed().is_empty() => Ok(PropertyValue::Geometry(None)),
            [geometry] => read_geometry(geometry, axes).map(|g| PropertyValue::Geometry(Some(g))).map_err(|e| {
                GmlError { locator: GEOMETRY.into(), what: format!("property '{GEOMETRY}': {}", e.what), ..e }
            }),
            _ => Err(error(at, "one geometry is expected here")),
        };
    };
    let property = &ft.properties[slot];
    let at_fault = |what: String| GmlError {
        line: element.line,
        locator: property.name.clone(),
        what: format!("property '{}': {what}", property.name),
    };
    if let Some(child) = element.children.first() {
        return Err(at_fault(format!("text is expected, not an element '{}'", child.local)));
    }
    let value = if nil {
        Value::Null
    } else if element.text.is_empty() && property.kind == PropertyType::String {
        empty_text
    } else {
        property.kind.parse(&element.text).map_err(at_fault)?
    };
    Ok(PropertyValue::Property(slot, value))
}

/// Reads a feature element's geometry and values; its id is the caller's to read. Of the elements in GML's own namespace those
/// that carry no data of ours (`boundedBy`) are passed over, and those that the type does not keep are refused by name.
pub fn read_feature(
    element: &Element,
    ft: &FeatureType,
    axes: &Axes,
) -> Result<(Option<Geometry>, Vec<Value>), GmlError> {
    let mut geometry = None;
    let mut values = vec![Value::Null; ft.properties.len()];
    for child in &element.children {
        let in_gml = child.ns.starts_with("http://www.opengis.net/gml");
        if in_gml && matches!(&*child.local, "boundedBy" | "metaDataProperty") {
            continue;
        }
        if let Some(what) = Standard::named(&child.local).filter(|_| in_gml) {
            read_standard(child, what, ft, axes, &mut values)?;
            continue;
        }
        let slot = match ft.property(&child.local) {
            Some((slot, _)) if !in_gml => Some(slot),
            None if !in_gml && ft.geometry.is_some() && &*child.local == GEOMETRY => None,
            _ => {
                let name = if in_gml { format!("gml:{}", child.local) } else { child.local.to_string() };
                return Err(GmlError {
                    line: child.line,
                    what: format!("feature type '{}' has no property '{name}'", ft.name),
                    locator: name,
                });
            }
        };
        match read_property(child, ft, slot, axes, Value::String("".into()))? {
            PropertyValue::Geometry(g) => geometry = g,
            PropertyValue::Property(slot, value) => values[slot] = value,
        }
    }
    Ok((geometry, values))
}

/// Reads one of GML's standard properties into `values`, which are of `ft`.
fn read_standard(
    element: &Element,
    what: Standard,
    ft: &FeatureType,
    axes: &Axes,
    values: &mut [Value],
) -> Result<(), GmlError> {
    let name = what.element();
    let refused = |reason: String| GmlError { line: element.line, locator: format!("gml:{name}"), what: reason };
    let no_place = |part: &str, property: String| {
        refused(format!("feature type '{}' has no property '{property}' to keep {part} in", ft.name))
    };
    let kept = what.kept_by(ft).ok_or_else(|| no_place(&format!("gml:{name}"), what.property()))?;
    if !values[kept.slot].is_null() {
        return Err(refused(format!("more than one gml:{name}")));
    }
    if element.attribute("href").is_some() {
        return Err(refused(format!("gml:{name} is text here, and not a reference")));
    }
    if let PropertyValue::Property(slot, value) =
        read_property(element, ft, Some(kept.slot), axes, Value::String("".into()))?
    {
        values[slot] = value;
    }
    match (element.attribute("codeSpace"), kept.code_space) {
        (None, _) => Ok(()),
        (Some(uri), Some(slot)) => {
            values[slot] = Value::String(uri.into());
            Ok(())
        }
        // As it is written.
        (Some(APP_NS), None) if what == Standard::Identifier => Ok(()),
        (Some(_), None) => {
            Err(no_place(&format!("the codeSpace of gml:{name}"), format!("{}_codespace", what.property())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gml::write::tests::{ships, urn_4326};
    use crate::format::xml;
    use crate::model::crs::Crs;

    #[test]
    fn features_are_read_by_local_name() {
        let ft = ships();
        let axes = Axes { default: urn_4326(), always_xy: false, target: Crs::WGS84 };
        let feature = |s: &str| {
            let element = xml::parse(s.as_bytes(), Default::default()).unwrap();
            read_feature(&element, &ft, &axes)
        };
        let (geometry, values) = feature(
            "<f:ships xmlns:f='x' xmlns:gml='http://www.opengis.net/gml'><gml:boundedBy/><f:crew>5.0</f:crew><name/>\
             <speed nil='true'/><f:geom><gml:Point><gml:pos>1 2</gml:pos></gml:Point></f:geom></f:ships>",
        )
        .unwrap();
        assert_eq!(geometry, Geometry::point(2.0, 1.0).ok());
        let name = Value::String("".into());
        assert_eq!(values, [name, Value::Null, Value::Null, Value::Null, Value::Int(5)]);
        let bad = feature("<ships>\n<crew>many</crew></ships>").unwrap_err();
        assert_eq!(
            (bad.locator.as_str(), bad.to_string().contains("line 2") && bad.what.contains("'many'")),
            ("crew", true)
        );
        assert_eq!(feature("<ships><colour/></ships>").unwrap_err().locator, "colour");
        assert!(feature("<ships><name><b/></name></ships>").is_err());
    }
}
