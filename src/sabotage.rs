//! Switches that take single safeguards away, so that tests can see what they are for: with any of them off, the simulation
//! must fail. Only in builds with debug assertions, and only on the thread that asked; elsewhere [`off`] is a constant.

/// A safeguard of the store's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// Delegate rows are hidden when their id is in the index.
    Masking,
    /// What is evicted while a reader reads goes on hiding for it.
    Epochs,
    /// Deleted features leave a tombstone in the index.
    Tombstones,
    /// Patches load their base.
    BaseLoads,
    /// A read waits until it is not behind a sweeper elsewhere.
    AsOf,
    /// An instance answers only when it has caught up after its start.
    ReadinessGate,
}

#[cfg(debug_assertions)]
mod switch {
    use std::cell::Cell;

    use super::Safeguard;

    thread_local! {
        static OFF: Cell<Option<Safeguard>> = const { Cell::new(None) };
    }

    /// Takes a safeguard away on this thread, or gives all back.
    pub fn switch_off(safeguard: Option<Safeguard>) {
        OFF.set(safeguard);
    }

    pub fn off(safeguard: Safeguard) -> bool {
        OFF.get() == Some(safeguard)
    }
}

#[cfg(not(debug_assertions))]
mod switch {
    /// Always false in a release.
    pub const fn off(_: super::Safeguard) -> bool {
        false
    }
}

pub use switch::*;
