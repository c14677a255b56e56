//! The functions that filters may call. They are total: of what they do not take, a null included, they make null.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

use crate::model::{Feature, Geometry, GeometryKind, PropertyType, Value};

/// What an operand may be computed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Numbers are added and so on as doubles; a division by zero is null.
    Add,
    Subtract,
    Multiply,
    Divide,
    /// What is left of a division, with the sign of the dividend.
    Modulo,
    /// A division without its fraction.
    DivideWhole,
    Power,
    Abs,
    Ceil,
    Floor,
    /// To the nearest integer, a half away from zero.
    Round,
    Sqrt,
    Lower,
    Upper,
    /// Without regard to case, for comparisons: see [`case_folded`].
    FoldCase,
    /// Without accents, for comparisons: see [`without_accents`].
    DropAccents,
    Trim,
    /// In characters.
    Length,
    Concat,
    /// Of the feature's geometry: whether it is of points, of lines, of areas. They have no argument.
    IsPoint,
    IsCurve,
    IsSurface,
}

/// How a function is called.
pub struct Signature {
    pub name: &'static str,
    pub function: Function,
    /// `None` stands for the geometry.
    pub arguments: &'static [Option<PropertyType>],
    pub returns: PropertyType,
}

const NUMBER: Option<PropertyType> = Some(PropertyType::Number);
const TEXT: Option<PropertyType> = Some(PropertyType::String);

/// The functions that are called by a name, under the names that they have in GeoServer and its clients.
pub const NAMED: &[Signature] = &[
    signature("abs", Function::Abs, &[NUMBER], PropertyType::Number),
    signature("ceil", Function::Ceil, &[NUMBER], PropertyType::Number),
    signature("floor", Function::Floor, &[NUMBER], PropertyType::Number),
    signature("round", Function::Round, &[NUMBER], PropertyType::Number),
    signature("sqrt", Function::Sqrt, &[NUMBER], PropertyType::Number),
    signature("strToLowerCase", Function::Lower, &[TEXT], PropertyType::String),
    signature("strToUpperCase", Function::Upper, &[TEXT], PropertyType::String),
    signature("strTrim", Function::Trim, &[TEXT], PropertyType::String),
    signature("strLength", Function::Length, &[TEXT], PropertyType::Int64),
    signature("strConcat", Function::Concat, &[TEXT, TEXT], PropertyType::String),
    // QGIS asks by these what kinds of geometry a type has.
    signature("IsPoint", Function::IsPoint, &[None], PropertyType::Boolean),
    signature("IsCurve", Function::IsCurve, &[None], PropertyType::Boolean),
    signature("IsSurface", Function::IsSurface, &[None], PropertyType::Boolean),
];

const fn signature(
    name: &'static str,
    function: Function,
    arguments: &'static [Option<PropertyType>],
    returns: PropertyType,
) -> Signature {
    Signature { name, function, arguments, returns }
}

impl Function {
    /// By its name, in whatever case.
    pub fn named(name: &str) -> Option<&'static Signature> {
        NAMED.iter().find(|s| s.name.eq_ignore_ascii_case(name))
    }

    /// What it makes of values, and of the feature that they are of.
    pub fn apply(self, arguments: &[std::borrow::Cow<'_, Value>], feature: &Feature) -> Value {
        let number = |i: usize| match **arguments.get(i)? {
            Value::Int(n) => Some(n as f64),
            Value::Number(x) => Some(x),
            _ => None,
        };
        let text = |i: usize| match &**arguments.get(i)? {
            Value::String(s) => Some(&**s),
            _ => None,
        };
        let of_one = |f: fn(f64) -> f64| number(0).map(f).and_then(finite);
        let of_two = |f: fn(f64, f64) -> f64| finite(f(number(0)?, number(1)?));
        let is = |single, multi| Some(Value::Bool(is_of(feature.geometry.as_ref()?, single, multi)));
        let value = match self {
            Function::Add => of_two(|a, b| a + b),
            Function::Subtract => of_two(|a, b| a - b),
            Function::Multiply => of_two(|a, b| a * b),
            Function::Divide => of_two(|a, b| a / b),
            Function::Modulo => of_two(|a, b| a % b),
            Function::DivideWhole => of_two(|a, b| (a / b).trunc()),
            Function::Power => of_two(f64::powf),
            Function::Abs => of_one(f64::abs),
            Function::Ceil => of_one(f64::ceil),
            Function::Floor => of_one(f64::floor),
            Function::Round => of_one(f64::round),
            Function::Sqrt => of_one(f64::sqrt),
            Function::Lower => text(0).map(|s| Value::String(s.to_lowercase().into())),
            Function::Upper => text(0).map(|s| Value::String(s.to_uppercase().into())),
            Function::FoldCase => text(0).map(|s| Value::String(case_folded(s).into())),
            Function::DropAccents => text(0).map(|s| Value::String(without_accents(s).into())),
            Function::Trim => text(0).map(|s| Value::String(s.trim().into())),
            Function::Length => text(0).map(|s| Value::Int(s.chars().count() as i64)),
            Function::Concat => text(0).zip(text(1)).map(|(a, b)| Value::String(format!("{a}{b}").into())),
            Function::IsPoint => is(GeometryKind::Point, GeometryKind::MultiPoint),
            Function::IsCurve => is(GeometryKind::LineString, GeometryKind::MultiLineString),
            Function::IsSurface => is(GeometryKind::Polygon, GeometryKind::MultiPolygon),
        };
        value.unwrap_or(Value::Null)
    }
}

/// Texts that differ in case alone become the same text, as Unicode's full case folding has it (`ß` is `ss`). Letter by letter,
/// so that a sigma at the end of a word is like any other.
pub fn case_folded(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// The letters without the marks above, below and across them, in Unicode's composed form. Marks that make another letter (a
/// vowel of Devanagari, a voiced syllable of Japanese) stay: they have other combining classes.
pub fn without_accents(text: &str) -> String {
    const DIACRITICS: std::ops::RangeInclusive<u8> = 200..=239;
    text.nfd().filter(|c| !DIACRITICS.contains(&canonical_combining_class(*c))).nfc().collect()
}

fn finite(x: f64) -> Option<Value> {
    x.is_finite().then_some(Value::Number(x))
}

fn is_of(geometry: &Geometry, single: GeometryKind, multi: GeometryKind) -> bool {
    [single, multi].contains(&geometry.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_can_be_left_out() {
        for (a, b) in [("STRASSE", "straße"), ("ΟΔΟΣ", "οδος"), ("ΟΔΟΣ", "οδοσ"), ("Éa", "éA")] {
            assert_eq!(case_folded(a), case_folded(b));
        }
        // Composed, and as a letter with its mark.
        for text in ["Ché", "Che\u{301}", "Chê"] {
            assert_eq!(without_accents(text), "Che");
        }
        for text in ["日本 한", "が", "हिन्दी"] {
            assert_eq!(without_accents(text), text);
        }
        assert_ne!(case_folded("a"), case_folded("á"));
    }
}
