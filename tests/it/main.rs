//! One binary: the conformance suites of the seams, run on every implementation, and the protocols.
//! Tests of Kafka, ZooKeeper and PostGIS run where `ALLUVIUM_KAFKA`, `ALLUVIUM_ZOOKEEPER` and `ALLUVIUM_POSTGRES` name
//! servers (`make stack-up` writes them to `target/stack/env`), and say that they were skipped where they do not.

// The lint's own exception does not reach the functions that tests share.
#![allow(clippy::unwrap_used)]

mod admin;
mod app;
mod architecture;
mod backup;
mod clients;
mod coordination;
mod delegate;
mod limits;
mod log;
mod ogcapi;
#[cfg(feature = "cluster")]
mod postgis;
#[cfg(feature = "cluster")]
mod postgres;
mod real;
mod store;
#[cfg(feature = "cluster")]
mod tables;
mod tracks;
mod wfs;
