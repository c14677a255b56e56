//! GeoJSON (RFC 7946), one feature at a time in either direction, without a tree in between.
//!
//! Owns the spelling of features, collections and merge patches in JSON; does not own what a request means by them. Invariants:
//! a feature that is written lists every property of its selection, null where unset; what is read is canonical and of its
//! property's type, and an error names the member by a JSON pointer.
//!
//! Coordinates are longitude, latitude of WGS 84 unless another CRS is agreed upon (OGC API - Features Part 2); they are X, Y
//! and, where the feature type has it, Z. M is neither written nor, but as a fourth ordinate, read; the times of tracks have a
//! member of their own.

mod coordinates;
mod read;
#[cfg(test)]
mod tests;
mod text;
mod times;
mod track;
mod write;

pub use read::{FeatureReader, ParsedChanges, ParsedFeature, Unknown, geometry_as_written, read_features};
pub use text::ParseError;
pub use write::{Closing, CollectionFrame, FeatureWriter, Options};
