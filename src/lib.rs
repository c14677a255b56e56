//! Alluvium serves geospatial features that change all the time and must be kept for good.
//!
//! Every write is appended to a [`log`]. Every instance tails the log into its [`transient`] index. A feature that has not
//! changed for its expiry time is persisted to the [`delegate`] by a sweeper and leaves the index. Every read merges both
//! tiers exactly; the [`store`] is where they meet, and [`web`] is what clients see of it.
//!
//! The floors, each importing only what stands below it:
//!
//! ```text
//! model, clock <- format <- query <- { log, transient, delegate, coordination } <- store <- web <- app <- main
//! ```
//!
//! The four in braces never know each other; `store` knows the traits of `log`, `delegate`, `coordination` only; [`app`] is
//! the one file that names implementations. A test reads the imports and fails when one runs upward.
//!
//! Beside the house stand its visitors, who know it by HTTP alone: [`client`], and on it [`ingest`], [`backup`], [`replay`] and [`demo`].

pub mod app;
pub mod backup;
pub mod client;
pub mod clock;
pub mod config;
pub mod coordination;
pub mod delegate;
pub mod demo;
pub mod format;
pub mod ingest;
pub mod log;
pub mod model;
pub mod query;
pub mod replay;
#[doc(hidden)]
pub mod sabotage;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod transient;
pub mod web;
