//! One run: the parts that all instances share, the instances, and what happens to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alluvium::coordination::Coordinator;
use alluvium::coordination::local::LocalCoordinator;
use alluvium::delegate::Delegate;
use alluvium::delegate::memory::MemoryDelegate;
use alluvium::log::FeatureLog;
use alluvium::log::memory::MemoryLog;
use alluvium::model::FeatureType;
use alluvium::query::Query;
use alluvium::store::{Parts, Settings, Store};
use futures::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use crate::clients;
use crate::faults::{Appended, Faults, FaultyDelegate, FaultyLog, SimClock};
use crate::oracle::{self, History, State};

pub const INSTANCES: usize = 3;
/// Simulated time with writes and faults.
const BUSY: Duration = Duration::from_secs(40);
/// Simulated time in which everything must have become quiet.
const QUIET: Duration = Duration::from_secs(120);

/// What a seed decides, and what a test takes away.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub compare_and_set: bool,
    /// Of a hundred commits of the delegate so many come very late, perhaps after their sweeper's death.
    pub late_commits: u32,
    pub told: bool,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        Plan { seed, compare_and_set: true, late_commits: 5, told: false }
    }

    /// Prints the story as it happens.
    pub fn told(self) -> Plan {
        Plan { told: true, ..self }
    }
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub violation: Option<String>,
    pub story: Vec<String>,
    pub reads: u64,
    pub writes: u64,
    pub sweeps: u64,
    pub crashes: u64,
}

pub struct World {
    pub plan: Plan,
    pub ft: FeatureType,
    log: MemoryLog,
    appended: Appended,
    pub delegate: MemoryDelegate,
    clock: Arc<SimClock>,
    group: LocalCoordinator,
    pub instances: Mutex<Vec<Option<Arc<Store>>>>,
    pub faults_on: Arc<AtomicBool>,
    sweeps: Arc<AtomicU64>,
    lives: AtomicU64,
    start: Instant,
    outcome: Mutex<Outcome>,
}

impl World {
    fn new(plan: Plan) -> Arc<World> {
        let clock = Arc::new(SimClock::new());
        let ft: FeatureType = toml::from_str(
            "name = 'ships'\nincarnation = 'sim'\nschema_version = 1\nexpiry = 3.0\nmax_dirty = 7.0\n\
             geometry = { type = 'Point' }\n\
             properties = [{ name = 'a', type = 'int64', index = true }, { name = 'b', type = 'int64' }]",
        )
        .unwrap();
        Arc::new(World {
            plan,
            ft,
            log: MemoryLog::new(clock.clone()),
            appended: Appended::default(),
            delegate: MemoryDelegate::default(),
            clock,
            group: LocalCoordinator::new("nobody"),
            instances: Mutex::new(vec![None; INSTANCES]),
            faults_on: Arc::new(AtomicBool::new(true)),
            sweeps: Arc::default(),
            lives: AtomicU64::new(0),
            start: Instant::now(),
            outcome: Mutex::default(),
        })
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>7} ms  {}", self.start.elapsed().as_millis(), what());
        if self.plan.told {
            println!("{line}");
        }
        self.outcome.lock().story.push(line);
    }

    /// The first thing that went against the contract.
    pub fn violated(&self, what: String) {
        self.tell(|| format!("VIOLATION {what}"));
        self.outcome.lock().violation.get_or_insert(what);
    }

    pub fn history(&self) -> History {
        History::of(&self.appended, &self.ft)
    }

    pub fn count(&self, add: impl FnOnce(&mut Outcome)) {
        add(&mut self.outcome.lock());
    }

    fn is_violated(&self) -> bool {
        self.outcome.lock().violation.is_some()
    }

    pub fn instance(&self, n: usize) -> Option<Arc<Store>> {
        self.instances.lock()[n].clone()
    }

    /// Brings up instance `n` with the parts that all share and faults of its own.
    async fn bring_up(&self, n: usize) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let seed = self.plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(life);
        let faults = Faults::new(seed, &self.plan, self.faults_on.clone(), self.sweeps.clone());
        let coordinator: Arc<dyn Coordinator> = Arc::new(self.group.join(format!("instance-{n}")));
        let parts = Parts {
            log: Arc::new(FaultyLog {
                inner: self.log.clone(),
                faults: faults.clone(),
                appended: self.appended.clone(),
            }),
            delegate: Arc::new(FaultyDelegate { inner: self.delegate.clone(), faults }),
            coordinator,
            clock: self.clock.clone(),
        };
        let settings = Settings {
            sweep_interval: Duration::from_millis(300),
            sweep_batch: 3,
            log_window: Duration::from_secs(15),
            apply_wait: Duration::from_secs(2),
            read_wait: Duration::from_secs(4),
            ..Settings::default()
        };
        // The delegate may be away just now; an operator would start it again.
        loop {
            match Store::start(parts.clone(), settings.clone(), Vec::new()).await {
                Ok(store) => {
                    self.tell(|| format!("instance {n} starts"));
                    self.instances.lock()[n] = Some(store);
                    return;
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Crashes and restarts, until the busy time is over.
    async fn upset(self: Arc<Self>) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed ^ 0xdead);
        loop {
            sleep(Duration::from_millis(rng.random_range(500..9_000))).await;
            if !self.faults_on.load(Ordering::Relaxed) {
                return;
            }
            let n = rng.random_range(0..INSTANCES);
            let Some(store) = self.instances.lock()[n].take() else { continue };
            store.abort();
            self.tell(|| format!("instance {n} crashes"));
            self.count(|o| o.crashes += 1);
            sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
            self.bring_up(n).await;
        }
    }

    /// Everything must age, and the delegate must then be what the log says.
    async fn becomes_quiet(&self) {
        let aged = timeout(QUIET, async {
            loop {
                sleep(Duration::from_millis(500)).await;
                let empty = |s: &Option<Arc<Store>>| {
                    s.as_ref().is_some_and(|s| s.status().iter().all(|p| p.ready && p.index_features == 0))
                };
                if self.instances.lock().iter().all(empty) {
                    return;
                }
            }
        });
        if aged.await.is_err() {
            let status: Vec<_> = self.instances.lock().iter().flatten().map(|s| s.status()).collect();
            let log = oracle::tell(&self.appended, &self.ft);
            return self.violated(format!("I4: not everything aged: {status:?}\n{log}"));
        }
        let history = self.history();
        let expected = history.at(history.end);
        let rows = self.rows().await;
        if rows != expected {
            return self.violated(format!("I4: the delegate has {rows:?}\n the log says {expected:?}"));
        }
        for n in 0..INSTANCES {
            let Some(store) = self.instance(n) else { continue };
            let query = Query { feature_type: "ships".into(), any_order: true, ..Query::default() };
            let answer = store.read(query).await.unwrap().all().await.unwrap();
            let answer: State =
                answer.into_iter().map(|i| (i.feature.id.to_string(), ((*i.feature).clone(), i.version))).collect();
            if answer != expected {
                self.violated(format!("I5: at rest instance {n} answers {answer:?}\n the log says {expected:?}"));
            }
        }
    }

    async fn rows(&self) -> State {
        let mut snapshot = self.delegate.snapshot(&Arc::new(self.ft.clone())).await.unwrap();
        let batches: Vec<_> = snapshot.scan(Default::default()).await.unwrap().map(Result::unwrap).collect().await;
        batches.into_iter().flatten().map(|r| (r.feature.id.to_string(), ((*r.feature).clone(), r.version))).collect()
    }

    async fn live(self: Arc<Self>) {
        self.log.create(&self.ft.log_name(), 1).await.unwrap();
        self.delegate.create(&self.ft).await.unwrap();
        self.group.leave();
        for n in 0..INSTANCES {
            self.bring_up(n).await;
        }
        let upset = tokio::spawn(self.clone().upset());
        let mut busy = Vec::new();
        for client in 0..3 {
            busy.push(tokio::spawn(clients::write(self.clone(), client)));
            busy.push(tokio::spawn(clients::read(self.clone(), client)));
            busy.push(tokio::spawn(clients::read(self.clone(), client + 3)));
        }
        sleep(BUSY).await;
        self.faults_on.store(false, Ordering::Relaxed);
        for client in busy {
            client.await.unwrap();
        }
        upset.await.unwrap();
        if !self.is_violated() {
            self.becomes_quiet().await;
        }
        self.instances.lock().iter().flatten().for_each(|s| s.abort());
    }
}

/// Runs a seed from its beginning to its end, in simulated time.
pub fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(plan);
        world.clone().live().await;
        let mut outcome = std::mem::take(&mut *world.outcome.lock());
        outcome.sweeps = world.sweeps.load(Ordering::Relaxed);
        outcome
    })
}
