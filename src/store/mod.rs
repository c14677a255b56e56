//! The heart, where the tiers meet: the catalogue, transactions, the merged read, the tailers and the sweepers.

pub mod api;

pub use api::*;
