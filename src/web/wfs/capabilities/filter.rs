//! What filters may say: `Filter_Capabilities`, in the shapes of filterCapabilities.xsd of FES 2.0, Filter 1.1 and Filter 1.0.

use super::Document;
use super::ows::truth;
use crate::format::gml::simple_type;
use crate::query::fes::TEMPORAL_OPERATORS;
use crate::query::function::NAMED;

const FILTER_CONFORMANCE: [(&str, bool); 15] = [
    ("ImplementsQuery", true),
    ("ImplementsAdHocQuery", true),
    ("ImplementsFunctions", true),
    ("ImplementsResourceId", true),
    ("ImplementsMinStandardFilter", true),
    ("ImplementsStandardFilter", true),
    ("ImplementsMinSpatialFilter", true),
    ("ImplementsSpatialFilter", true),
    ("ImplementsMinTemporalFilter", true),
    ("ImplementsTemporalFilter", true),
    ("ImplementsVersionNav", false),
    ("ImplementsSorting", true),
    ("ImplementsExtendedOperators", false),
    ("ImplementsMinimumXPath", true),
    ("ImplementsSchemaElementFunc", false),
];

/// The spatial operators under the names of FES 2.0 and Filter 1.1.
const SPATIAL: [&str; 11] = [
    "BBOX",
    "Equals",
    "Disjoint",
    "Intersects",
    "Touches",
    "Crosses",
    "Within",
    "Contains",
    "Overlaps",
    "DWithin",
    "Beyond",
];

impl Document {
    /// As Filter 1.0 has it.
    pub(super) fn filter_1_0(&mut self) {
        self.raw("<ogc:Filter_Capabilities>\n<ogc:Spatial_Capabilities><ogc:Spatial_Operators>");
        for name in SPATIAL {
            // The one that has another name there.
            self.raw(&format!("<ogc:{}/>", if name == "Intersects" { "Intersect" } else { name }));
        }
        self.raw(
            "</ogc:Spatial_Operators></ogc:Spatial_Capabilities>\n<ogc:Scalar_Capabilities><ogc:Logical_Operators/>",
        );
        self.raw("<ogc:Comparison_Operators><ogc:Simple_Comparisons/><ogc:Like/><ogc:Between/><ogc:NullCheck/>");
        self.raw("</ogc:Comparison_Operators>\n<ogc:Arithmetic_Operators><ogc:Simple_Arithmetic/>");
        self.raw("<ogc:Functions><ogc:Function_Names>");
        self.functions("ogc:Function_Name");
        self.raw("</ogc:Function_Names></ogc:Functions></ogc:Arithmetic_Operators></ogc:Scalar_Capabilities>\n");
        self.raw("</ogc:Filter_Capabilities>\n");
    }

    /// As Filter 1.1 has it.
    pub(super) fn filter_1_1(&mut self) {
        self.raw("<ogc:Filter_Capabilities>\n<ogc:Spatial_Capabilities>");
        self.texts("ogc:GeometryOperand", &["gml:Envelope", "gml:Point", "gml:LineString", "gml:Polygon"]);
        self.names("ogc:SpatialOperator", "", &SPATIAL);
        self.raw("</ogc:Spatial_Capabilities>\n<ogc:Scalar_Capabilities><ogc:LogicalOperators/>");
        self.texts(
            "ogc:ComparisonOperator",
            &[
                "EqualTo",
                "NotEqualTo",
                "LessThan",
                "GreaterThan",
                "LessThanEqualTo",
                "GreaterThanEqualTo",
                "Like",
                "Between",
                "NullCheck",
            ],
        );
        self.raw("<ogc:ArithmeticOperators><ogc:SimpleArithmetic/><ogc:Functions><ogc:FunctionNames>");
        self.functions("ogc:FunctionName");
        self.raw("</ogc:FunctionNames></ogc:Functions></ogc:ArithmeticOperators></ogc:Scalar_Capabilities>\n");
        self.raw("<ogc:Id_Capabilities><ogc:EID/><ogc:FID/></ogc:Id_Capabilities>\n");
        self.raw("</ogc:Filter_Capabilities>\n");
    }

    /// As FES 2.0 has it.
    pub(super) fn filter_2_0(&mut self) {
        self.raw("<fes:Filter_Capabilities>\n<fes:Conformance>\n");
        for (name, holds) in FILTER_CONFORMANCE {
            self.constraint("fes", name, truth(holds));
        }
        self.raw("</fes:Conformance>\n<fes:Id_Capabilities><fes:ResourceIdentifier name=\"fes:ResourceId\"/></fes:Id_Capabilities>\n");
        self.raw("<fes:Scalar_Capabilities><fes:LogicalOperators/>");
        self.names(
            "fes:ComparisonOperator",
            "",
            &[
                "PropertyIsEqualTo",
                "PropertyIsNotEqualTo",
                "PropertyIsLessThan",
                "PropertyIsGreaterThan",
                "PropertyIsLessThanOrEqualTo",
                "PropertyIsGreaterThanOrEqualTo",
                "PropertyIsLike",
                "PropertyIsNull",
                "PropertyIsNil",
                "PropertyIsBetween",
            ],
        );
        self.raw("</fes:Scalar_Capabilities>\n<fes:Spatial_Capabilities>");
        self.names(
            "fes:GeometryOperand",
            "gml:",
            &[
                "Envelope",
                "Point",
                "MultiPoint",
                "LineString",
                "Curve",
                "MultiCurve",
                "Polygon",
                "Surface",
                "MultiSurface",
                "MultiGeometry",
            ],
        );
        self.names("fes:SpatialOperator", "", &SPATIAL);
        self.raw("</fes:Spatial_Capabilities>\n<fes:Temporal_Capabilities>");
        self.names("fes:TemporalOperand", "gml:", &["TimeInstant", "TimePeriod"]);
        self.names("fes:TemporalOperator", "", &TEMPORAL_OPERATORS);
        self.raw("</fes:Temporal_Capabilities>\n<fes:Functions>");
        for function in NAMED {
            self.raw(&format!(
                "<fes:Function name=\"{}\"><fes:Returns>{}</fes:Returns>",
                function.name,
                simple_type(function.returns)
            ));
            self.raw("<fes:Arguments>");
            for (argument, name) in function.arguments.iter().zip(["first", "second"]) {
                let kind = argument.map_or("gml:AbstractGeometryType", simple_type);
                self.raw(&format!("<fes:Argument name=\"{name}\"><fes:Type>{kind}</fes:Type></fes:Argument>"));
            }
            self.raw("</fes:Arguments></fes:Function>\n");
        }
        self.raw("</fes:Functions>\n</fes:Filter_Capabilities>\n");
    }

    /// A list element, named by its items' name and an `s`.
    fn names(&mut self, item: &str, prefix: &str, names: &[&str]) {
        self.raw(&format!("<{item}s>"));
        names.iter().for_each(|name| self.raw(&format!("<{item} name=\"{prefix}{name}\"/>")));
        self.raw(&format!("</{item}s>\n"));
    }

    /// The same list with the names in the items.
    fn texts(&mut self, item: &str, texts: &[&str]) {
        self.raw(&format!("<{item}s>"));
        texts.iter().for_each(|text| self.raw(&format!("<{item}>{text}</{item}>")));
        self.raw(&format!("</{item}s>\n"));
    }

    /// Each function with the number of its arguments, as it was told before FES 2.0.
    fn functions(&mut self, item: &str) {
        for function in NAMED {
            self.raw(&format!("<{item} nArgs=\"{}\">{}</{item}>", function.arguments.len(), function.name));
        }
    }
}
