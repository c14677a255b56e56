//! The seams with faults: calls that are late, that fail before their effect, or after it; parts that are away; an instance
//! that stands still, or that died with calls under way.

pub mod delegate;
pub mod leases;
pub mod log;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use alluvium::clock::Clock;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use crate::plan::{Plan, Rates};

/// A wall clock: tokio's paused clock, and by how much this one is wrong.
#[derive(Clone)]
pub struct SimClock {
    start: Instant,
    wrong_by_ms: Arc<AtomicI64>,
}

impl SimClock {
    pub fn new(start: Instant) -> SimClock {
        SimClock { start, wrong_by_ms: Arc::default() }
    }

    pub fn set_wrong_by(&self, ms: i64) {
        self.wrong_by_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.start.elapsed().as_millis() as i64 + self.wrong_by_ms.load(Ordering::Relaxed)
    }
}

/// The parts that all instances share and that may be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Log,
    Delegate,
    Leases,
}

/// What the faults of all instances have in common.
pub struct Weather {
    /// Off towards the end of a run, so that it becomes quiet.
    on: AtomicBool,
    away: Mutex<[Option<Instant>; 3]>,
}

impl Weather {
    pub fn new() -> Arc<Weather> {
        Arc::new(Weather { on: AtomicBool::new(true), away: Mutex::default() })
    }

    pub fn is_bad(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn clears_up(&self) {
        self.on.store(false, Ordering::Relaxed);
        *self.away.lock() = Default::default();
    }

    pub fn takes_away(&self, part: Part, until: Instant) {
        self.away.lock()[part as usize] = Some(until);
    }

    fn is_away(&self, part: Part) -> bool {
        self.away.lock()[part as usize].is_some_and(|until| Instant::now() < until)
    }
}

/// Decides, by the seed, what goes wrong at the seams of one instance.
pub struct Faults {
    rng: Mutex<StdRng>,
    weather: Arc<Weather>,
    rates: Rates,
    paused_until: Mutex<Instant>,
    died: AtomicBool,
}

pub enum Fate {
    Fine,
    FailsBefore,
    FailsAfter,
}

impl Faults {
    pub fn new(seed: u64, plan: &Plan, weather: Arc<Weather>) -> Arc<Faults> {
        let rng = Mutex::new(StdRng::seed_from_u64(seed));
        let paused_until = Mutex::new(Instant::now());
        Arc::new(Faults { rng, weather, rates: plan.rates, paused_until, died: AtomicBool::new(false) })
    }

    /// The instance stands still until then: whatever it asks of others, and whatever they answer, waits.
    pub fn pause(&self, until: Instant) {
        *self.paused_until.lock() = until;
    }

    /// The instance is no more.
    pub fn die(&self) {
        self.died.store(true, Ordering::Relaxed);
    }

    /// A call that was under way when its instance died: did it get through?
    fn is_lost(&self) -> bool {
        self.died.load(Ordering::Relaxed) && self.rng.lock().random_bool(0.5)
    }

    fn happens(&self, per_mille: u32) -> bool {
        self.weather.is_bad() && self.rng.lock().random_range(0..1_000) < per_mille
    }

    fn some_ms(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.lock().random_range(range))
    }

    /// Mostly short, now and then very long.
    async fn lateness(&self) {
        self.late(self.rates.late, self.rates.very_late).await;
    }

    async fn late(&self, late: u32, very_late: u32) {
        let duration = if self.happens(very_late) {
            self.some_ms(1_000..12_000)
        } else if self.happens(late) {
            self.some_ms(50..800)
        } else {
            self.some_ms(0..8)
        };
        if !duration.is_zero() {
            sleep(duration).await;
        }
        while self.weather.is_bad() && *self.paused_until.lock() > Instant::now() {
            let until = *self.paused_until.lock();
            sleep_until(until).await;
        }
    }

    /// What becomes of a call on this part.
    fn fate(&self, part: Part) -> Fate {
        if self.weather.is_away(part) || self.happens(self.rates.fails / 2) {
            Fate::FailsBefore
        } else if self.happens(self.rates.fails / 2) {
            Fate::FailsAfter
        } else {
            Fate::Fine
        }
    }
}
