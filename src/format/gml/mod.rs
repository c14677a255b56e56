//! GML: features written as GML 3.2.1, 3.1.1 and 2.1.2, their schemas, and geometries read from all of them.
//!
//! Owns the names, ids and shapes of our features in XML; does not own what a request says ([`crate::web`]) or what a filter
//! means ([`crate::query`]). Coordinates leave in the order of the spelling of their CRS and come back into the stored x,y.
//!
//! Invariant: what is written validates against the schema that [`schema`] writes, and every `gml:id` of one answer is there
//! once, as long as every feature is.

mod arc;
mod feature;
mod id;
mod read;
mod schema;
mod standard;
mod version;
mod write;

pub use feature::{PropertyValue, read_feature, read_property};
pub use id::{gml_id, resolve_rid};
pub use read::{Axes, GmlError, is_geometry, read_envelope, read_geometry};
pub use schema::{schema, simple_type};
pub use standard::{Kept, Standard};
pub use version::GmlVersion;
pub use write::{FeatureWriter, GeometryStyle, Selection, write_geometry, write_number, write_value};

/// The namespace of every feature type.
pub const APP_NS: &str = "urn:alluvium:app";
/// The prefix that goes with it in everything we write.
pub const APP: &str = "app";
