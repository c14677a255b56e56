//! One run: the parts that all instances share, the instances, and what happens to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluvium::coordination::local::LocalCoordinator;
use alluvium::delegate::Delegate;
use alluvium::delegate::memory::MemoryDelegate;
use alluvium::log::FeatureLog;
use alluvium::log::memory::MemoryLog;
use alluvium::model::{FeatureType, Offset, Position};
use alluvium::store::{CatalogueError, Parts, Settings, Store};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::oracle::Logs;
use crate::plan::{self, Plan};
use crate::recorded::{Ends, Events, Look, Recorded};
use crate::seams::delegate::{FaultyDelegate, SharedDelegate};
use crate::seams::leases::FaultyCoordinator;
use crate::seams::log::{FaultyLog, SharedLog};
use crate::seams::{Faults, Part, SimClock, Weather};
use crate::{clients, invariants, rest};

pub const INSTANCES: usize = 3;
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(300);
/// How often what the delegate refuses is tried again, a batch at a time.
const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// How long the log is kept behind the watermark.
pub const LOG_WINDOW: Duration = Duration::from_secs(15);
/// How long tracks that are not in the index any more may have a tail.
const TRACK_REST: Duration = Duration::from_secs(6);
/// Simulated time with writes and faults.
const BUSY: Duration = Duration::from_secs(40);

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The invariants that were broken, by name, and how; and answers that no fault explains.
    pub violations: Vec<String>,
    pub story: Vec<String>,
    pub reads: u64,
    pub writes: u64,
    pub sweeps: u64,
    pub crashes: u64,
}

/// A store and its life.
#[derive(Clone)]
pub struct Instance {
    pub store: Arc<Store>,
    faults: Arc<Faults>,
    dead: CancellationToken,
}

impl Instance {
    /// What a client is answered; `None` when the instance crashes before.
    pub async fn unless_it_crashes<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        self.dead.run_until_cancelled(call).await
    }

    /// Of the background tasks of this life; none may have any.
    fn panics(&self) -> impl Iterator<Item = String> {
        let tasks = self.store.task_reports().into_iter().filter(|task| task.panics > 0);
        tasks.map(|task| format!("{} panicked: {}", task.name, task.last_error.unwrap_or_default()))
    }

    fn crash(&self) {
        self.faults.die();
        self.store.abort();
        self.dead.cancel();
    }
}

pub struct World {
    pub plan: Plan,
    pub types: Vec<Arc<FeatureType>>,
    pub logs: Arc<Mutex<Logs>>,
    pub events: Arc<Mutex<Events>>,
    /// The newest position that any client was told.
    pub newest: Mutex<Position>,
    pub log: Arc<SharedLog<MemoryLog>>,
    pub delegate: Arc<SharedDelegate>,
    log_clock: SimClock,
    clocks: Vec<SimClock>,
    group: LocalCoordinator,
    instances: Mutex<Vec<Option<Instance>>>,
    pub weather: Arc<Weather>,
    lives: AtomicU64,
    start: Instant,
    story: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
}

impl World {
    fn new(plan: Plan) -> Arc<World> {
        let start = Instant::now();
        let log_clock = SimClock::new(start);
        let types = plan.feature_types();
        let logs = Arc::new(Mutex::new(Logs::new(&plan.last_types())));
        let events = Arc::<Mutex<Events>>::default();
        let log = SharedLog {
            inner: MemoryLog::new(Arc::new(log_clock.clone())),
            logs: logs.clone(),
            start,
            max_value_bytes: plan.max_value_bytes,
            broken: plan.broken,
            waiting: Mutex::default(),
        };
        let delegate = SharedDelegate {
            inner: MemoryDelegate::default(),
            logs: logs.clone(),
            events: events.clone(),
            start,
            refuses: plan.refuses.into(),
            broken: plan.broken,
        };
        Arc::new(World {
            plan,
            types: types.into_iter().map(Arc::new).collect(),
            logs,
            events,
            newest: Mutex::default(),
            log: Arc::new(log),
            delegate: Arc::new(delegate),
            log_clock,
            clocks: (0..INSTANCES).map(|_| SimClock::new(start)).collect(),
            group: LocalCoordinator::new("nobody"),
            instances: Mutex::new(vec![None; INSTANCES]),
            weather: Weather::new(),
            lives: AtomicU64::new(0),
            start,
            story: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>7} ms  {}", self.start.elapsed().as_millis(), what());
        if self.plan.told {
            println!("{line}");
        }
        self.story.lock().push(line);
    }

    /// An answer, or a task's end, that no fault explains.
    pub fn wrong(&self, what: String) {
        self.tell(|| what.clone());
        self.wrong.lock().push(format!("what no fault explains\n  {what}"));
    }

    pub fn instance(&self, n: usize) -> Option<Instance> {
        self.instances.lock()[n].clone()
    }

    /// The offsets that a position has of a type, zeros where it has none.
    pub fn offsets(&self, feature_type: &str, position: &Position) -> Vec<Offset> {
        let none = || vec![0; self.plan.partitions as usize];
        position.offsets(feature_type, "sim").ok().flatten().map_or_else(none, <[Offset]>::to_vec)
    }

    pub fn ends(&self, position: &Position) -> Ends {
        self.types.iter().map(|ft| (ft.name.clone(), self.offsets(&ft.name, position))).collect()
    }

    /// Brings up instance `n` with the parts that all share and faults of its own.
    async fn bring_up(&self, n: usize) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let seed = self.plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(life);
        let faults = Faults::new(seed, &self.plan, self.weather.clone());
        let inner = self.group.join(format!("instance-{n}"));
        let parts = Parts {
            log: Arc::new(FaultyLog { shared: self.log.clone(), faults: faults.clone() }),
            delegate: Arc::new(FaultyDelegate { shared: self.delegate.clone(), faults: faults.clone() }),
            coordinator: Arc::new(FaultyCoordinator { inner, faults: faults.clone() }),
            clock: Arc::new(self.clocks[n].clone()),
        };
        let settings = Settings {
            sweep_interval: SWEEP_INTERVAL,
            sweep_batch: 3,
            refused_interval: REFUSED_INTERVAL,
            memory: self.plan.memory,
            log_window: LOG_WINDOW,
            track_rest: TRACK_REST,
            apply_wait: Duration::from_secs(2),
            read_wait: Duration::from_secs(4),
            ..Settings::default()
        };
        // The delegate may be away just now; an operator would start it again.
        loop {
            match Store::start(parts.clone(), settings.clone(), Vec::new()).await {
                Ok(store) => {
                    self.tell(|| format!("instance {n} starts"));
                    self.instances.lock()[n] = Some(Instance { store, faults, dead: CancellationToken::new() });
                    return;
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Crashes and restarts, pauses, outages and clocks that jump, until the busy time is over.
    async fn upset(self: Arc<Self>) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed ^ 0xdead);
        let upsets = self.plan.upsets;
        loop {
            sleep(Duration::from_millis(rng.random_range(200..1_000))).await;
            if !self.weather.is_bad() {
                return;
            }
            let mut happens = |every_ms: u32| every_ms > 0 && rng.random_range(0..every_ms) < 600;
            let (crash, pause) = (happens(upsets.crash), happens(upsets.pause));
            let (outage, clock) = (happens(upsets.outage), happens(upsets.clock));
            let n = rng.random_range(0..INSTANCES);
            let until = Instant::now() + Duration::from_millis(rng.random_range(500..15_000));
            let Some(instance) = self.instance(n) else { continue };
            if pause {
                self.tell(|| format!("instance {n} stands still"));
                instance.faults.pause(until);
            }
            if outage {
                let part = [Part::Log, Part::Delegate, Part::Leases][rng.random_range(0..3)];
                self.tell(|| format!("{part:?} away"));
                self.weather.takes_away(part, until);
            }
            if clock {
                let ms = rng.random_range(-10_000..10_000);
                self.tell(|| format!("clock {n} is wrong by {ms} ms"));
                self.clocks[n].set_wrong_by(ms);
                self.log_clock.set_wrong_by(ms / 4);
            }
            if crash {
                self.instances.lock()[n] = None;
                instance.panics().for_each(|what| self.wrong(what));
                instance.crash();
                self.tell(|| format!("instance {n} crashes"));
                drop(instance);
                sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
                self.bring_up(n).await;
            }
        }
    }

    /// Changes the types, on any instance, until it is done.
    async fn change(self: Arc<Self>) {
        let Some(ms) = self.plan.changes_ms else { return };
        let mut rng = StdRng::seed_from_u64(self.plan.seed ^ 0xc4a6e);
        sleep(Duration::from_millis(ms)).await;
        for ft in &self.types {
            loop {
                sleep(Duration::from_millis(100)).await;
                let n = rng.random_range(0..INSTANCES);
                let Some(instance) = self.instance(n) else { continue };
                let changing = instance.store.change_feature_type(&ft.name, |t| Ok(plan::changed(t)));
                match instance.unless_it_crashes(changing).await {
                    None | Some(Err(CatalogueError::Unavailable(_))) => {}
                    Some(Ok(now)) => break self.tell(|| format!("{} is at version {}", ft.name, now.schema_version)),
                    Some(Err(e)) => break self.wrong(format!("a change of {} was answered {e}", ft.name)),
                }
            }
        }
    }

    /// Puts the delegate back to an earlier state, as somebody restores a database, while the log still has what came since.
    async fn put_back(self: Arc<Self>) {
        let Some(ms) = self.plan.dump_ms else { return };
        sleep(Duration::from_millis(ms)).await;
        let dump = self.delegate.inner.dump();
        sleep(LOG_WINDOW / 3).await;
        self.delegate.inner.put_back(&dump);
        let mut events = self.events.lock();
        events.put_back = Some(events.commits.len());
        self.tell(|| "the delegate is put back".into());
    }

    /// Looks now and then at how far back a restart would have to begin.
    async fn look(self: Arc<Self>) {
        while self.weather.is_bad() {
            sleep(Duration::from_millis(500)).await;
            for ft in &self.types {
                let watermarks = self.delegate.inner.watermarks(ft).await.unwrap();
                self.events.lock().looks.extend((0..).zip(watermarks).map(|(partition, w)| Look {
                    at_ms: self.start.elapsed().as_millis() as u64,
                    feature_type: ft.name.clone(),
                    partition,
                    durable_through: w.durable_through,
                }));
            }
        }
    }

    async fn live(self: Arc<Self>) {
        for ft in &self.types {
            self.log.inner.create(&ft.log_name(), ft.partitions).await.unwrap();
            self.delegate.inner.create(ft).await.unwrap();
        }
        self.group.leave();
        for n in 0..INSTANCES {
            self.bring_up(n).await;
        }
        let mut busy = vec![
            tokio::spawn(self.clone().upset()),
            tokio::spawn(self.clone().look()),
            tokio::spawn(self.clone().change()),
            tokio::spawn(self.clone().put_back()),
        ];
        for client in 0..3 {
            busy.push(tokio::spawn(clients::write(self.clone(), client)));
            busy.push(tokio::spawn(clients::read(self.clone(), client)));
            busy.push(tokio::spawn(clients::read(self.clone(), client + 3)));
        }
        sleep(BUSY).await;
        self.weather.clears_up();
        self.clocks.iter().chain([&self.log_clock]).for_each(|c| c.set_wrong_by(0));
        for task in busy {
            task.await.unwrap();
        }
        let rest = rest::come(&self).await;
        self.events.lock().rest = Some(rest);
        let instances: Vec<Instance> = self.instances.lock().iter().flatten().cloned().collect();
        for instance in instances {
            instance.panics().for_each(|what| self.wrong(what));
            instance.store.abort();
        }
    }

    fn outcome(&self) -> Outcome {
        let logs = std::mem::replace(&mut *self.logs.lock(), Logs::new(&[]));
        let recorded = Recorded { plan: self.plan.clone(), logs, events: std::mem::take(&mut *self.events.lock()) };
        let mut violations = invariants::broken(&recorded);
        violations.append(&mut self.wrong.lock());
        let mut rest = recorded.logs.told.clone();
        rest.extend(recorded.events.commits.iter().map(|c| format!("{c:?}")));
        rest.push(format!("{:?}", recorded.events.rest));
        if self.plan.told {
            rest.iter().for_each(|line| println!("{line}"));
        }
        let mut story = std::mem::take(&mut *self.story.lock());
        story.append(&mut rest);
        Outcome {
            violations,
            reads: recorded.events.reads.len() as u64,
            writes: recorded.events.writes.len() as u64,
            sweeps: recorded.events.commits.len() as u64,
            crashes: story.iter().filter(|line| line.ends_with(" crashes")).count() as u64,
            story,
        }
    }
}

/// Runs a seed from its beginning to its end, in simulated time.
pub fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(plan);
        world.clone().live().await;
        world.outcome()
    })
}
