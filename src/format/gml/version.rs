//! What differs between the versions of GML, in a word each.

/// A version of GML that we write. Each goes with one version of WFS: 2.1.2 with 1.0, 3.1.1 with 1.1, 3.2.1 with 2.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GmlVersion {
    V2,
    V3_1,
    V3_2,
}

impl GmlVersion {
    pub const ALL: [GmlVersion; 3] = [GmlVersion::V3_2, GmlVersion::V3_1, GmlVersion::V2];

    pub fn ns(self) -> &'static str {
        match self {
            GmlVersion::V2 | GmlVersion::V3_1 => "http://www.opengis.net/gml",
            GmlVersion::V3_2 => "http://www.opengis.net/gml/3.2",
        }
    }

    /// Where the whole of its schema is.
    pub fn schema(self) -> &'static str {
        match self {
            GmlVersion::V2 => "http://schemas.opengis.net/gml/2.1.2/feature.xsd",
            GmlVersion::V3_1 => "http://schemas.opengis.net/gml/3.1.1/base/gml.xsd",
            GmlVersion::V3_2 => "http://schemas.opengis.net/gml/3.2.1/gml.xsd",
        }
    }

    /// The media type of documents in it, as the WFS of its time spells it.
    pub fn media_type(self) -> &'static str {
        match self {
            GmlVersion::V2 => "text/xml; subtype=gml/2.1.2",
            GmlVersion::V3_1 => "text/xml; subtype=gml/3.1.1",
            GmlVersion::V3_2 => "application/gml+xml; version=3.2",
        }
    }

    /// What a feature's element can stand for.
    pub(super) fn feature_element(self) -> &'static str {
        match self {
            GmlVersion::V2 | GmlVersion::V3_1 => "gml:_Feature",
            GmlVersion::V3_2 => "gml:AbstractFeature",
        }
    }

    /// The attribute with a feature's id.
    pub(super) fn id_attribute(self) -> &'static str {
        match self {
            GmlVersion::V2 => "fid",
            GmlVersion::V3_1 | GmlVersion::V3_2 => "gml:id",
        }
    }

    pub(super) fn geometry_names(self) -> &'static GeometryNames {
        match self {
            GmlVersion::V2 => &GML_2,
            GmlVersion::V3_1 | GmlVersion::V3_2 => &GML_3,
        }
    }
}

/// The names in a geometry that are not the same in all versions, without their prefix.
pub(super) struct GeometryNames {
    pub multi_line: &'static str,
    pub line_member: &'static str,
    pub multi_polygon: &'static str,
    pub polygon_member: &'static str,
    pub outer_ring: &'static str,
    pub inner_ring: &'static str,
    /// The element with the position of a point.
    pub position: &'static str,
    /// The element with the positions of a line.
    pub positions: &'static str,
    /// What stands between the ordinates of a position; between positions it is a blank.
    pub separator: u8,
    /// The types of the properties that hold a line, a polygon, several lines, several polygons.
    pub property_types: [&'static str; 4],
}

/// GML 2.1.2, geometry.xsd.
static GML_2: GeometryNames = GeometryNames {
    multi_line: "MultiLineString",
    line_member: "lineStringMember",
    multi_polygon: "MultiPolygon",
    polygon_member: "polygonMember",
    outer_ring: "outerBoundaryIs",
    inner_ring: "innerBoundaryIs",
    position: "coordinates",
    positions: "coordinates",
    separator: b',',
    property_types: [
        "gml:LineStringPropertyType",
        "gml:PolygonPropertyType",
        "gml:MultiLineStringPropertyType",
        "gml:MultiPolygonPropertyType",
    ],
};

/// What 3.1.1 calls as 3.2.1 does: it has GML 2's names too, but as deprecated ones.
static GML_3: GeometryNames = GeometryNames {
    multi_line: "MultiCurve",
    line_member: "curveMember",
    multi_polygon: "MultiSurface",
    polygon_member: "surfaceMember",
    outer_ring: "exterior",
    inner_ring: "interior",
    position: "pos",
    positions: "posList",
    separator: b' ',
    property_types: [
        "gml:CurvePropertyType",
        "gml:SurfacePropertyType",
        "gml:MultiCurvePropertyType",
        "gml:MultiSurfacePropertyType",
    ],
};
