//! Bytes to model and back, streaming, without HTTP.
//!
//! Owns how things are spelled, and that what is read is canonical; does not own what they mean. Invariant: no input, however
//! broken, makes a reader here panic or take memory out of proportion to its length.

pub mod archive;
pub mod csv;
pub mod file;
mod flatbuffer;
pub mod flatgeobuf;
pub mod geojson;
pub mod geopackage;
pub mod gml;
pub mod json;
pub mod kml;
pub mod placed;
pub mod record;
pub mod shapefile;
pub mod wkt;
pub mod xml;
pub mod zip;
