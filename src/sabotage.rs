//! Switches that take single safeguards away, so that tests can see what they are for: with any of them off, the simulation
//! must fail. Only in builds with debug assertions, on the thread that asked, or in the whole of a process which was started
//! with `ALLUVIUM_SABOTAGE` set to the name of one; in a release [`off`] is a constant.

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
    /// The delegate's watermark moves only from where the sweeper found it.
    CompareAndSet,
    /// A read looks at the index first and at the delegate second.
    IndexFirst,
    /// What does not match is hidden too: the place that a ship has left.
    MaskingOfAll,
    /// What enters the index when a read has begun hides nothing from it.
    OwnMoment,
    /// After a base load nothing older than the rows that it has shown is answered.
    ServeFrom,
    /// A record that a row already includes, or has outlived, is skipped.
    Versions,
    /// A patch continues the dirtiness of its feature and does not begin it anew.
    DirtySince,
    /// A change that comes later than one of a later event time does nothing.
    EventTime,
    /// A conditional change is decided by what the log says at its place.
    Conditions,
    /// A transaction in several records is applied when it is whole.
    WholeRuns,
    /// A sweeper that lags behind another one persists nothing.
    SweeperCaughtUp,
    /// A marker that a crash has swallowed is written by the next owner.
    LostMarker,
    /// An instance that lags behind the cut of the log begins anew.
    BeginAnew,
    /// What the delegate has refused stays in the index.
    Refused,
    /// And is taken up by an instance that starts.
    RefusedAtStart,
    /// A write that is told to be visible has been waited for.
    OwnWrites,
    /// A feature whose base is not known yet is not answered for.
    UnknownUntilResolved,
    /// And nothing of its changes is called durable.
    DurableWhenResolved,
    /// What stands apart of a track's line is read with it (by the delegate in memory).
    Tails,
}

#[cfg(debug_assertions)]
mod switch {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::Safeguard;

    /// What the process was started without: the name of a [`Safeguard`].
    static STARTED_WITHOUT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("ALLUVIUM_SABOTAGE").ok());

    thread_local! {
        static OFF: Cell<&'static [Safeguard]> = const { Cell::new(&[]) };
    }

    /// Takes safeguards away on this thread; all others are given back.
    pub fn switch_off(safeguards: &'static [Safeguard]) {
        OFF.set(safeguards);
    }

    pub fn off(safeguard: Safeguard) -> bool {
        OFF.get().contains(&safeguard)
            || STARTED_WITHOUT.as_deref().is_some_and(|name| name == format!("{safeguard:?}"))
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
