//! Leases that are lost while they are held, and leases that two believe to hold. Safety may not rest on them.

use std::sync::Arc;

use alluvium::coordination::local::LocalCoordinator;
use alluvium::coordination::{CoordinationError, Coordinator, Lease};
use async_trait::async_trait;
use tokio::time::Instant;

use super::{Fate, Faults, Part};

pub struct FaultyCoordinator {
    pub inner: LocalCoordinator,
    pub faults: Arc<Faults>,
}

impl FaultyCoordinator {
    async fn before(&self) -> Result<(), CoordinationError> {
        self.faults.lateness().await;
        match self.faults.fate(Part::Leases) {
            Fate::FailsBefore => Err(CoordinationError("a fault before".into())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Coordinator for FaultyCoordinator {
    fn instance(&self) -> &str {
        self.inner.instance()
    }

    async fn members(&self) -> Result<Vec<String>, CoordinationError> {
        self.before().await?;
        self.inner.members().await
    }

    async fn acquire(&self, resource: &str) -> Result<Option<Box<dyn Lease>>, CoordinationError> {
        self.before().await?;
        let inner = self.inner.acquire(resource).await?;
        let until = Instant::now() + self.faults.some_ms(500..12_000);
        let held = if self.faults.happens(self.faults.rates.doubled_lease) {
            Held::Believed { until }
        } else {
            let Some(inner) = inner else { return Ok(None) };
            let lost = self.faults.happens(self.faults.rates.lost_lease).then_some(until);
            Held::Really { inner, lost }
        };
        Ok(Some(Box::new(FaultyLease { held, faults: self.faults.clone() })))
    }
}

struct FaultyLease {
    held: Held,
    faults: Arc<Faults>,
}

enum Held {
    Really {
        inner: Box<dyn Lease>,
        lost: Option<Instant>,
    },
    /// Another may have it by now.
    Believed {
        until: Instant,
    },
}

#[async_trait]
impl Lease for FaultyLease {
    fn is_held(&self) -> bool {
        let not_before = |until: &Instant| Instant::now() < *until;
        match &self.held {
            Held::Really { inner, lost } => inner.is_held() && lost.as_ref().is_none_or(not_before),
            Held::Believed { until } => self.faults.weather.is_bad() && not_before(until),
        }
    }

    async fn release(self: Box<Self>) {
        if let Held::Really { inner, .. } = self.held {
            inner.release().await;
        }
    }
}
