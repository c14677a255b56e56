//! SEAM: who does what. Leases for sweepers, spread evenly over the live instances: ZooKeeper (clustered) or in-process.
//!
//! A lease saves duplicate work; safety never rests on it (the delegate's compare-and-set does that).
//!
//! Contract, checked on every implementation by `tests/it/coordination.rs`:
//! - At any time at most one live instance holds a resource, but for the moment in which a lost session is noticed.
//! - A resource whose holder died is free within the session time-out.
//! - With n live instances each holds its fair share of the resources that all of them ask for, soon after a change of members.

use async_trait::async_trait;

#[derive(Debug, thiserror::Error)]
#[error("the coordination service is not available: {0}")]
pub struct CoordinationError(pub String);

#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// This instance's id, unique among the living.
    fn instance(&self) -> &str;

    /// The live instances, this one included.
    async fn members(&self) -> Result<Vec<String>, CoordinationError>;

    /// Tries to take the lease on a resource. `None`: another holds it, or should by its fair share; ask again later.
    async fn acquire(&self, resource: &str) -> Result<Option<Box<dyn Lease>>, CoordinationError>;
}

/// Held until released, dropped or lost.
#[async_trait]
pub trait Lease: Send + Sync {
    /// False once it may be another's: the session is lost or in doubt, or fair spreading wants the resource elsewhere.
    fn is_held(&self) -> bool;

    async fn release(self: Box<Self>);
}
