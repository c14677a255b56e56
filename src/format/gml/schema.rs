//! The XML Schema of feature types, as `DescribeFeatureType` answers it (WFS 2.0, 9; 1.1.0, 8; 1.0.0, 8).

use super::{APP, APP_NS, GmlVersion, Kept};
use crate::model::feature_type::GEOMETRY;
use crate::model::{FeatureType, GeometryKind, PropertyType};

/// One schema document for `types` as they are written in `gml`.
///
/// Clients are served best by the plainest schema that says it: named types of XSD alone, one sequence, the literal prefix
/// `gml:` on the geometry. Anything more makes some of them fall back to guessing.
pub fn schema<'a>(types: impl IntoIterator<Item = &'a FeatureType>, gml: GmlVersion) -> String {
    let (gml_ns, gml_schema) = (gml.ns(), gml.schema());
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <xsd:schema xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:gml=\"{gml_ns}\" xmlns:{APP}=\"{APP_NS}\" \
         targetNamespace=\"{APP_NS}\" elementFormDefault=\"qualified\" version=\"1.0\">\n  \
         <xsd:import namespace=\"{gml_ns}\" schemaLocation=\"{gml_schema}\"/>\n"
    );
    for ft in types {
        let name = &ft.name;
        out.push_str(&format!(
            "  <xsd:element name=\"{name}\" type=\"{APP}:{name}Type\" substitutionGroup=\"{}\"/>\n  \
             <xsd:complexType name=\"{name}Type\">\n    <xsd:complexContent>\n      \
             <xsd:extension base=\"gml:AbstractFeatureType\">\n        <xsd:sequence>\n",
            gml.feature_element()
        ));
        if let Some(g) = &ft.geometry {
            // Optional even where the column is not: a client may ask for features without it.
            push_element(&mut out, GEOMETRY, geometry_type(g.kind, gml), true);
        }
        // The standard ones are inherited.
        let inherited: Vec<Kept> = Kept::of(ft, gml).collect();
        let own = ft.properties.iter().enumerate().filter(|(slot, _)| !inherited.iter().any(|kept| kept.tells(*slot)));
        for (_, p) in own {
            push_element(&mut out, &p.name, simple_type(p.kind), p.nullable);
        }
        out.push_str(
            "        </xsd:sequence>\n      </xsd:extension>\n    </xsd:complexContent>\n  </xsd:complexType>\n",
        );
    }
    out.push_str("</xsd:schema>\n");
    out
}

fn push_element(out: &mut String, name: &str, kind: &str, optional: bool) {
    let min = if optional { 0 } else { 1 };
    out.push_str(&format!(
        "          <xsd:element name=\"{name}\" type=\"{kind}\" minOccurs=\"{min}\" maxOccurs=\"1\" nillable=\"{optional}\"/>\n"
    ));
}

fn geometry_type(kind: GeometryKind, gml: GmlVersion) -> &'static str {
    let [line, polygon, multi_line, multi_polygon] = gml.geometry_names().property_types;
    match kind {
        GeometryKind::Geometry => "gml:GeometryPropertyType",
        GeometryKind::Point => "gml:PointPropertyType",
        GeometryKind::LineString => line,
        GeometryKind::Polygon => polygon,
        GeometryKind::MultiPoint => "gml:MultiPointPropertyType",
        GeometryKind::MultiLineString => multi_line,
        GeometryKind::MultiPolygon => multi_polygon,
        GeometryKind::GeometryCollection => "gml:MultiGeometryPropertyType",
    }
}

/// The type of XML Schema that a property has.
pub fn simple_type(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::String | PropertyType::Uuid | PropertyType::Json | PropertyType::Bytes => "xsd:string",
        PropertyType::Int32 => "xsd:int",
        PropertyType::Int64 => "xsd:long",
        PropertyType::Number => "xsd:double",
        PropertyType::Boolean => "xsd:boolean",
        PropertyType::Date => "xsd:date",
        PropertyType::DateTime => "xsd:dateTime",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_plain() {
        let ships = crate::format::gml::write::tests::ships();
        let text = schema([&ships], GmlVersion::V3_2);
        assert!(text.contains(
            "<xsd:element name=\"ships\" type=\"app:shipsType\" substitutionGroup=\"gml:AbstractFeature\"/>"
        ));
        let elements: Vec<&str> =
            text.lines().map(str::trim).filter(|l| l.starts_with("<xsd:element") && l.contains("minOccurs")).collect();
        assert_eq!(
            elements,
            [
                "<xsd:element name=\"geom\" type=\"gml:PointPropertyType\" minOccurs=\"0\" maxOccurs=\"1\" nillable=\"true\"/>",
                "<xsd:element name=\"name\" type=\"xsd:string\" minOccurs=\"0\" maxOccurs=\"1\" nillable=\"true\"/>",
                "<xsd:element name=\"speed\" type=\"xsd:double\" minOccurs=\"0\" maxOccurs=\"1\" nillable=\"true\"/>",
                "<xsd:element name=\"seen\" type=\"xsd:dateTime\" minOccurs=\"1\" maxOccurs=\"1\" nillable=\"false\"/>",
                "<xsd:element name=\"afloat\" type=\"xsd:boolean\" minOccurs=\"0\" maxOccurs=\"1\" nillable=\"true\"/>",
                "<xsd:element name=\"crew\" type=\"xsd:int\" minOccurs=\"0\" maxOccurs=\"1\" nillable=\"true\"/>",
            ]
        );
        crate::format::xml::parse(text.as_bytes(), Default::default()).unwrap();
        let old = schema([&ships], GmlVersion::V2);
        assert!(
            old.contains("xmlns:gml=\"http://www.opengis.net/gml\"")
                && old.contains("substitutionGroup=\"gml:_Feature\"")
        );
    }
}
