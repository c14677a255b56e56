//! GML's standard properties: `gml:description`, `gml:identifier` and `gml:name` (GML 3.2.1, 7.2; there is no identifier
//! before).
//!
//! Every feature may have them by its schema; a type keeps those that it declares a property for: `gml_description`,
//! `gml_identifier`, `gml_name`, with the code spaces of the last two in `gml_identifier_codespace` and `gml_name_codespace`.
//! These are ordinary properties in tables, in filters and in GeoJSON; GML has them in its own elements, where its version has
//! those.

use super::{APP_NS, GmlVersion};
use crate::model::{Feature, FeatureType, PropertyType, Value};

/// One of them, whether or not a type keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Description,
    Identifier,
    Name,
}

/// A standard property that a type keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub what: Standard,
    /// The property's id.
    pub slot: usize,
    /// That of the property with its `codeSpace`.
    pub code_space: Option<usize>,
}

impl Standard {
    /// In their order in a feature.
    const ALL: [Standard; 3] = [Standard::Description, Standard::Identifier, Standard::Name];

    /// By the local name of its element.
    pub fn named(element: &str) -> Option<Standard> {
        Standard::ALL.into_iter().find(|what| what.element() == element)
    }

    /// The local name of its element.
    pub fn element(self) -> &'static str {
        match self {
            Standard::Description => "description",
            Standard::Identifier => "identifier",
            Standard::Name => "name",
        }
    }

    /// The name of the property that keeps it.
    pub fn property(self) -> String {
        format!("gml_{}", self.element())
    }

    /// As `ft` keeps it, if it does.
    pub fn kept_by(self, ft: &FeatureType) -> Option<Kept> {
        let (slot, _) = ft.property(&self.property())?;
        let code_space = ft.property(&format!("gml_{}_codespace", self.element()));
        let code_space = code_space.filter(|(_, p)| self != Standard::Description && p.kind == PropertyType::String);
        Some(Kept { what: self, slot, code_space: code_space.map(|(slot, _)| slot) })
    }

    fn is_in(self, gml: GmlVersion) -> bool {
        self != Standard::Identifier || gml == GmlVersion::V3_2
    }
}

impl Kept {
    /// Those of `ft` that features in `gml` have an element for, in their order.
    pub(super) fn of(ft: &FeatureType, gml: GmlVersion) -> impl Iterator<Item = Kept> {
        let kept = Standard::ALL.into_iter().filter(move |what| what.is_in(gml)).filter_map(|what| what.kept_by(ft));
        // GML 2 has no code spaces.
        kept.map(move |kept| Kept { code_space: kept.code_space.filter(|_| gml != GmlVersion::V2), ..kept })
    }

    /// Whether this element tells the value of property `slot`, so that no element of the type's own does.
    pub(super) fn tells(&self, slot: usize) -> bool {
        self.slot == slot || self.code_space == Some(slot)
    }

    /// The `codeSpace` of a feature's. An identifier must have one: it is one of this service's where none is known.
    pub(super) fn code_space_in<'f>(&self, feature: &'f Feature) -> Option<&'f str> {
        match self.code_space.map(|slot| feature.value(slot)) {
            Some(Value::String(uri)) => Some(uri),
            _ => (self.what == Standard::Identifier).then_some(APP_NS),
        }
    }
}
