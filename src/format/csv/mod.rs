//! CSV (RFC 4180): rows into features, and features into rows.

mod read;
mod write;

pub use read::{Columns, Names};
pub use write::FeatureWriter;
