//! Coordination inside one process: for the embedded server, which is the only instance, and for several instances that
//! share a process.
//!
//! Deterministic: no task, no clock, no chance. Invariant: a resource is in the table exactly as long as a lease on it lives
//! whose instance has not left.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{CoordinationError, Coordinator, Lease, fair_owner};

/// One instance of a group. Dropped, it leaves the group.
pub struct LocalCoordinator {
    group: Arc<Mutex<Group>>,
    instance: String,
    /// Tells this joining from an earlier one of the same name.
    joining: u64,
}

#[derive(Default)]
struct Group {
    /// Names with their joinings.
    members: BTreeMap<String, u64>,
    held: BTreeMap<String, Holder>,
    numbers: u64,
}

#[derive(Clone, Copy, PartialEq)]
struct Holder {
    joining: u64,
    lease: u64,
}

impl Group {
    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn names(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }
}

impl LocalCoordinator {
    /// The first instance of a group of its own.
    pub fn new(instance: impl Into<String>) -> LocalCoordinator {
        LocalCoordinator::enter(Arc::default(), instance.into())
    }

    /// Another instance in the same group. It takes the place of a living one of that name, whose leases are lost.
    pub fn join(&self, instance: impl Into<String>) -> LocalCoordinator {
        LocalCoordinator::enter(self.group.clone(), instance.into())
    }

    fn enter(shared: Arc<Mutex<Group>>, instance: String) -> LocalCoordinator {
        let mut group = shared.lock();
        let joining = group.next_number();
        if let Some(previous) = group.members.insert(instance.clone(), joining) {
            group.held.retain(|_, holder| holder.joining != previous);
        }
        drop(group);
        LocalCoordinator { group: shared, instance, joining }
    }

    /// Leaves the group for good: its leases are lost and free at once, and it acquires no other.
    pub fn leave(&self) {
        let mut group = self.group.lock();
        if group.members.get(&self.instance) == Some(&self.joining) {
            group.members.remove(&self.instance);
            group.held.retain(|_, holder| holder.joining != self.joining);
        }
    }
}

impl Drop for LocalCoordinator {
    fn drop(&mut self) {
        self.leave();
    }
}

#[async_trait]
impl Coordinator for LocalCoordinator {
    fn instance(&self) -> &str {
        &self.instance
    }

    async fn members(&self) -> Result<Vec<String>, CoordinationError> {
        Ok(self.group.lock().names())
    }

    async fn acquire(&self, resource: &str) -> Result<Option<Box<dyn Lease>>, CoordinationError> {
        let mut group = self.group.lock();
        if group.members.get(&self.instance) != Some(&self.joining) {
            return Err(CoordinationError(format!("instance '{}' has left", self.instance)));
        }
        if group.held.contains_key(resource) || fair_owner(&group.names(), resource) != Some(&self.instance) {
            return Ok(None);
        }
        let holder = Holder { joining: self.joining, lease: group.next_number() };
        group.held.insert(resource.to_owned(), holder);
        Ok(Some(Box::new(LocalLease {
            group: self.group.clone(),
            instance: self.instance.clone(),
            resource: resource.to_owned(),
            holder,
        })))
    }
}

struct LocalLease {
    group: Arc<Mutex<Group>>,
    instance: String,
    resource: String,
    holder: Holder,
}

#[async_trait]
impl Lease for LocalLease {
    fn is_held(&self) -> bool {
        let group = self.group.lock();
        group.held.get(&self.resource) == Some(&self.holder)
            && fair_owner(&group.names(), &self.resource) == Some(&self.instance)
    }

    async fn release(self: Box<Self>) {}
}

impl Drop for LocalLease {
    fn drop(&mut self) {
        let mut group = self.group.lock();
        if group.held.get(&self.resource) == Some(&self.holder) {
            group.held.remove(&self.resource);
        }
    }
}
