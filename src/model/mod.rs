//! The ground floor: what a feature is, what a feature type is, what a change is, and where in a log it stands.
//!
//! Pure data and rules: no I/O, no clock, no task. Everything above may import it; it imports nothing of ours.

pub mod change;
pub mod crs;
pub mod feature;
pub mod feature_type;
pub mod geometry;
pub mod position;
pub mod schema_change;
pub mod table;
pub mod track;
pub mod value;

pub use change::{Append, Change, Expected, Patch, Persisted, Record, Run};
pub use feature::{Feature, FeatureId, IdError, check_id, new_id, no_id};
pub use feature_type::{Expiry, FeatureType, GeometryColumn, Property, SchemaError};
pub use geometry::{Dimension, Geometry, GeometryError, GeometryKind, Rect};
pub use position::{Offset, PartitionId, Position, Watermark, partition_of};
pub use table::ExistingTable;
pub use track::{Fixes, Growth, TrackSettings, TrackShape};
pub use value::{PropertyType, Value};
