//! SEAM: who does what, and what all go by. Leases for sweepers, spread evenly over the live instances, and an agreement: ZooKeeper
//! (clustered) or in-process.
//!
//! A lease saves duplicate work; safety never rests on it (the delegate's compare-and-set does that). The agreement is one short
//! text for all instances. Who has changed it can learn when every live instance goes by the change.
//!
//! Contract, checked on every implementation by `tests/it/coordination.rs`:
//! - At any time at most one live instance holds a resource, but for the moment in which a lost session is noticed.
//! - A resource whose holder died is free within the session time-out.
//! - With n live instances each holds its fair share of the resources that all of them ask for, soon after a change of members.
//! - The agreement changes by compare-and-set, and its versions rise. It outlives the instances.
//! - While an instance [is consulted](Coordinator::is_consulted), no version that it has not confirmed is told to be confirmed by
//!   all.

pub mod local;
#[cfg(feature = "cluster")]
pub mod zookeeper;

use async_trait::async_trait;
use bytes::Bytes;

use crate::task::TaskStatus;

#[derive(Debug, thiserror::Error)]
#[error("the coordination service is not available: {0}")]
pub struct CoordinationError(pub String);

/// What all instances go by, as it was at some moment. Empty before anybody has agreed on anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    pub version: u64,
    /// At most [`MOST_AGREED`] bytes.
    pub text: Bytes,
}

/// How long an agreement may be: ZooKeeper takes a megabyte, with what stands around it.
pub const MOST_AGREED: usize = 900_000;

#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// This instance's id, unique among the living.
    fn instance(&self) -> &str;

    /// The live instances, this one included.
    async fn members(&self) -> Result<Vec<String>, CoordinationError>;

    /// Tries to take the lease on a resource. `None`: another holds it, or should by its fair share; ask again later.
    async fn acquire(&self, resource: &str) -> Result<Option<Box<dyn Lease>>, CoordinationError>;

    /// What is agreed on now.
    async fn agreement(&self) -> Result<Agreement, CoordinationError> {
        Err(CoordinationError("it knows no agreement".to_owned()))
    }

    /// Waits for an agreement that this instance has not confirmed, which is so at the beginning and after every loss of
    /// contact, and gives it.
    async fn unconfirmed_agreement(&self) -> Agreement {
        std::future::pending().await
    }

    /// Agrees on `text` in the place of that version, and gives its own; `None`: there is another one by now. After an error the
    /// outcome is open.
    async fn agree(&self, _instead_of: u64, _text: Bytes) -> Result<Option<u64>, CoordinationError> {
        Err(CoordinationError("it knows no agreement".to_owned()))
    }

    /// Tells the others that this instance goes by that version now.
    async fn confirm(&self, _version: u64) -> Result<(), CoordinationError> {
        Ok(())
    }

    /// The live instances that have not confirmed that version, nor a later one.
    async fn unconfirmed_by(&self, _version: u64) -> Result<Vec<String>, CoordinationError> {
        Ok(Vec::new())
    }

    /// False while the others could agree on something without this instance.
    fn is_consulted(&self) -> bool {
        true
    }

    /// What runs in the background for it.
    fn tasks(&self) -> Vec<TaskStatus> {
        Vec::new()
    }
}

/// Held until released, dropped or lost.
#[async_trait]
pub trait Lease: Send + Sync {
    /// False once it may be another's: the session is lost or in doubt, or fair spreading wants the resource elsewhere.
    fn is_held(&self) -> bool;

    async fn release(self: Box<Self>);
}

/// Which of the members should hold a resource: the one with the highest hash of the pair (rendezvous hashing), so that all
/// who see the same members agree without a word, and a member that comes or goes moves its own share only.
pub fn fair_owner<'a>(members: &'a [String], resource: &str) -> Option<&'a str> {
    members.iter().map(String::as_str).max_by_key(|member| (weight(member, resource), *member))
}

/// FNV-1a with MurmurHash3's finalizer: the same on every platform and in every version of the program, which a rolling
/// upgrade needs.
fn weight(member: &str, resource: &str) -> u64 {
    let bytes = member.bytes().chain([0]).chain(resource.bytes());
    let mut h = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_leaves_moves_its_own_share_only() {
        let three: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let two = three[..2].to_vec();
        let mut shares = [0; 3];
        for n in 0..3000 {
            let resource = format!("ships/{n}");
            let before = fair_owner(&three, &resource).unwrap();
            shares[three.iter().position(|m| m == before).unwrap()] += 1;
            if before != "c" {
                assert_eq!(fair_owner(&two, &resource), Some(before));
            }
        }
        assert!(shares.iter().all(|n| (850..1150).contains(n)), "{shares:?}");
        assert_eq!(fair_owner(&[], "ships/0"), None);
    }
}
