//! XML as the protocols need it: an escaping writer, and a bounded reader that resolves namespaces and never looks outside
//! the document.
//!
//! Owns well-formedness and limits; knows nothing of GML, filters or WFS.
//!
//! Invariants: what [`text`] and [`attribute`] write cannot break out of its place and is legal XML 1.0; what [`Reader`]
//! reads takes memory in proportion to its [`Limits`], whatever the document says (no DOCTYPE, so no entities but the five
//! of XML itself; no fetching).

mod read;
mod write;

pub use read::{Element, Limits, Reader, XmlError, parse};
pub use write::{attribute, text};
