//! Coordination inside one process: for the embedded server, which is the only instance, and for several instances that
//! share a process.
//!
//! Deterministic: no task, no clock, no chance. Invariant: a resource is in the table exactly as long as a lease on it lives
//! whose instance has not left. The agreement may be kept in a file, and outlives the process then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Agreement, CoordinationError, Coordinator, Lease, fair_owner};

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
    agreement: Agreement,
    /// By joining.
    confirmed: BTreeMap<u64, u64>,
    /// Told when there is another agreement.
    agreed: Arc<Notify>,
    /// Where the agreement is kept.
    file: Option<PathBuf>,
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

    fn has_confirmed(&self, joining: u64) -> bool {
        self.confirmed.get(&joining).is_some_and(|version| *version >= self.agreement.version)
    }
}

/// All of it or nothing, whatever happens meanwhile.
fn keep(file: &Path, text: &[u8]) -> io::Result<()> {
    let half = file.with_extension("new");
    let mut new = File::create(&half)?;
    new.write_all(text)?;
    new.sync_all()?;
    std::fs::rename(&half, file)?;
    #[cfg(unix)]
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
    Ok(())
}

impl LocalCoordinator {
    /// The first instance of a group of its own.
    pub fn new(instance: impl Into<String>) -> LocalCoordinator {
        LocalCoordinator::enter(Arc::default(), instance.into())
    }

    /// The same, with what was agreed on when `file` was written last, where it is there.
    pub fn kept_in(file: &Path, instance: impl Into<String>) -> io::Result<LocalCoordinator> {
        let text = match std::fs::read(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let coordinator = LocalCoordinator::new(instance);
        let mut group = coordinator.group.lock();
        group.agreement.text = text.into();
        group.file = Some(file.to_owned());
        drop(group);
        Ok(coordinator)
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
            group.confirmed.remove(&self.joining);
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

    async fn agreement(&self) -> Result<Agreement, CoordinationError> {
        Ok(self.group.lock().agreement.clone())
    }

    async fn unconfirmed_agreement(&self) -> Agreement {
        let agreed = self.group.lock().agreed.clone();
        loop {
            let mut another = std::pin::pin!(agreed.notified());
            // From here on none is missed, so the present one is looked at after it.
            another.as_mut().enable();
            {
                let group = self.group.lock();
                if !group.has_confirmed(self.joining) {
                    return group.agreement.clone();
                }
            }
            another.await;
        }
    }

    async fn agree(&self, instead_of: u64, text: Bytes) -> Result<Option<u64>, CoordinationError> {
        let mut group = self.group.lock();
        if group.agreement.version != instead_of {
            return Ok(None);
        }
        if let Some(file) = &group.file {
            keep(file, &text).map_err(|e| CoordinationError(format!("{}: {e}", file.display())))?;
        }
        let version = instead_of + 1;
        group.agreement = Agreement { version, text };
        group.agreed.notify_waiters();
        Ok(Some(version))
    }

    async fn confirm(&self, version: u64) -> Result<(), CoordinationError> {
        self.group.lock().confirmed.insert(self.joining, version);
        Ok(())
    }

    async fn unconfirmed_by(&self, version: u64) -> Result<Vec<String>, CoordinationError> {
        let group = self.group.lock();
        let is_behind = |joining: &u64| group.confirmed.get(joining).is_none_or(|confirmed| *confirmed < version);
        Ok(group.members.iter().filter(|(_, joining)| is_behind(joining)).map(|(name, _)| name.clone()).collect())
    }

    fn is_consulted(&self) -> bool {
        let group = self.group.lock();
        group.members.get(&self.instance) == Some(&self.joining) && group.confirmed.contains_key(&self.joining)
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
