//! What a seed decides before anything happens: how much of each kind of fault, how busy the writers are, how the log and
//! the feature types are set up. Every seed has another mixture, many of them without most kinds of fault: what is rare in an
//! average run is common in some (swarm testing).

use alluvium::model::{FeatureType, Property, PropertyType};
use alluvium::store::MemoryLimits;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clients::{FEW, LATE};

/// Nothing is ever young enough to stay.
const ALWAYS: MemoryLimits = MemoryLimits { soft: 1, hard: usize::MAX };
/// Some features stay, and when they cannot leave, what is written after them is refused.
const LITTLE: MemoryLimits = MemoryLimits { soft: 1_500, hard: 4_000 };

/// Of a thousand calls at a seam so many meet this fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Fails before or after its effect.
    pub fails: u32,
    /// Takes 50 to 800 ms.
    pub late: u32,
    /// Takes 1 to 12 s.
    pub very_late: u32,
    /// The delegate's commit takes up to 12 s more, and outlives its sweeper.
    pub late_commit: u32,
    /// A tail is as late as this; a log that lags is the hard case.
    pub lagging_tail: u32,
    /// The rows of a delegate's snapshot come as late as this.
    pub late_row: u32,
    /// An append waits for another one to mingle with, as concurrent transactions of a broker do.
    pub mingled: u32,
    /// A lease is lost while it is held.
    pub lost_lease: u32,
    /// A lease is believed to be held when it is free for others.
    pub doubled_lease: u32,
}

/// Milliseconds between two events of a kind, on average; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upsets {
    pub crash: u32,
    /// An instance stands still for up to 15 s.
    pub pause: u32,
    /// The log, the delegate or the coordination is away for all, for up to 15 s.
    pub outage: u32,
    /// A clock jumps by up to 10 s, forward or back.
    pub clock: u32,
}

/// Parts of the world that break their own contract: to see that the invariants notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The log acknowledges records that it has not taken.
    LogForgets,
    /// The log takes one half of an append only.
    LogTears,
    /// The delegate writes nothing of a batch of which it refuses anything.
    RefusedStopsAll,
}

/// Which feature types there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    Ships,
    Tracks,
    Both,
    /// The tracks grow by the ships' positions.
    Derived,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub rates: Rates,
    pub upsets: Upsets,
    pub broken: Option<Broken>,
    /// The delegate's tables have a constraint that the types do not know: `few` may not be null.
    pub refuses: bool,
    /// In the end it is the tables that are mended, not the features.
    pub tables_are_mended: bool,
    pub types: Types,
    /// The changes of ships are ordered by a time of their own.
    pub event_time: bool,
    pub partitions: u32,
    /// Features that the writers know.
    pub ids: usize,
    /// Milliseconds between two writes of a writer, at most.
    pub pace: [u64; 3],
    /// Of a hundred changes of a writer so many are patches and appends.
    pub patches: u32,
    /// So likely is a change that expects its feature in the version that its writer has seen.
    pub conditional: f64,
    pub expiry_ms: u64,
    pub max_dirty_ms: u64,
    /// A small one makes transactions travel as several records.
    pub max_value_bytes: usize,
    pub memory: MemoryLimits,
    /// So long after the beginning the types get a wider property and one more.
    pub changes_ms: Option<u64>,
    /// So long after the beginning the delegate is dumped, to be put back to that a while later.
    pub dump_ms: Option<u64>,
    /// Prints the story as it happens.
    pub told: bool,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let calm = rng.random_range(0..10) == 0;
        let max_value_bytes = if rng.random_bool(0.5) { 200 } else { 1 << 20 };
        let mut plan = Plan {
            seed,
            rates: if calm { Rates::default() } else { Rates::some(&mut rng) },
            upsets: if calm { Upsets::default() } else { Upsets::some(&mut rng) },
            broken: None,
            refuses: rng.random_range(0..4) == 0,
            types: [Types::Ships, Types::Ships, Types::Tracks, Types::Both, Types::Derived][rng.random_range(0..5)],
            partitions: rng.random_range(1..=3),
            ids: rng.random_range(2..=8),
            pace: std::array::from_fn(|_| [150, 700, 3_000][rng.random_range(0..3)]),
            patches: [10, 40, 40, 80][rng.random_range(0..4)],
            conditional: [0.0, 0.2, 0.5][rng.random_range(0..3)],
            expiry_ms: [0, 1_000, 3_000, 3_000][rng.random_range(0..4)],
            max_dirty_ms: [2_000, 7_000][rng.random_range(0..2)],
            max_value_bytes,
            tables_are_mended: rng.random_bool(0.5),
            memory: [MemoryLimits::NONE, MemoryLimits::NONE, ALWAYS, LITTLE][rng.random_range(0..4)],
            // Drawn last, so that the other seeds' stories stay as they were.
            event_time: rng.random_range(0..4) == 0,
            changes_ms: (!calm && rng.random_bool(0.5)).then(|| rng.random_range(1_000..30_000)),
            dump_ms: None,
            told: false,
        };
        if !calm && plan.changes_ms.is_none() && rng.random_range(0..3) == 0 {
            plan.dump_ms = Some(rng.random_range(1_000..30_000));
        }
        if plan.refuses && !plan.tables_are_mended {
            // Else nothing could be written that mends the features.
            plan.memory.hard = usize::MAX;
        }
        plan
    }

    pub fn told(self) -> Plan {
        Plan { told: true, ..self }
    }

    pub fn breaking(self, broken: Broken) -> Plan {
        Plan { broken: Some(broken), ..self }
    }

    pub fn in_which_instances_crash(self) -> Plan {
        Plan { upsets: Upsets { crash: 2_000, ..self.upsets }, ..self }
    }

    /// Until the log has been cut past where they stand.
    pub fn in_which_some_stand_still(self) -> Plan {
        Plan { upsets: Upsets { pause: 2_000, ..self.upsets }, ..self }
    }

    /// Each believes to be the owner, and what an other one has tried moves no marker that would tell them.
    pub fn in_which_lagging_sweepers_try_again_what_is_refused(self) -> Plan {
        let rates = Rates { doubled_lease: 500, lagging_tail: 400, ..self.rates };
        Plan { rates, refuses: true, tables_are_mended: true, ..self }
    }

    /// Everything is persisted before those who lag come to it, and most of it builds on what was there.
    pub fn in_which_instances_lag_and_patch(self) -> Plan {
        let rates = Rates { lagging_tail: 400, ..self.rates };
        Plan { rates, patches: 80, expiry_ms: 0, ..self }
    }

    pub fn in_which_only_the_tables_refuse(self) -> Plan {
        let (rates, upsets) = Default::default();
        Plan { rates, upsets, refuses: true, tables_are_mended: true, changes_ms: None, dump_ms: None, ..self }
    }

    /// Nothing goes wrong.
    pub fn is_calm(&self) -> bool {
        self.rates.all().iter().chain(&self.upsets.all()).all(|rate| *rate == 0)
    }

    /// As they are at the end.
    pub fn last_types(&self) -> Vec<FeatureType> {
        let mut types = self.feature_types();
        if self.changes_ms.is_some() {
            types.iter_mut().for_each(|ft| *ft = ft.changed_to(&changed(ft)).unwrap());
        }
        types
    }

    /// As they are at the beginning.
    pub fn feature_types(&self) -> Vec<FeatureType> {
        let ships = "name = 'ships'\n[geometry]\ntype = 'Point'\n";
        let timed = format!("{ships}[event_time]\nproperty = 'at'\n");
        let ships = if self.event_time { &timed } else { ships };
        let tracks = "name = 'tracks'\n[track]\n[geometry]\ntype = 'LineString'\ndimension = 'XYM'\n";
        let derived = format!("track_of = 'ships'\n{tracks}");
        let types: Vec<&str> = match self.types {
            Types::Ships => vec![ships],
            Types::Tracks => vec![tracks],
            Types::Both => vec![ships, tracks],
            Types::Derived => vec![ships, &derived],
        };
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        let common = format!(
            "incarnation = 'sim'\nschema_version = 1\npartitions = {}\nexpiry = {:?}\nmax_dirty = {:?}\nproperties = [\n\
             {{ name = 'few', type = 'int32', index = true }},\n\
             {{ name = 'one', type = 'int64' }},\n{{ name = 'another', type = 'int64' }}{}]\n",
            self.partitions,
            seconds(self.expiry_ms),
            seconds(self.max_dirty_ms),
            if self.event_time { ",\n{ name = 'at', type = 'date-time' }" } else { "" }
        );
        types.iter().map(|own| toml::from_str(&format!("{common}{own}")).unwrap()).collect()
    }
}

/// What the types become; what they have become already stays.
pub fn changed(ft: &FeatureType) -> FeatureType {
    let mut next = ft.clone();
    next.properties[FEW].kind = PropertyType::Number;
    if next.property(LATE).is_none() {
        next.properties.push(Property { name: LATE.into(), ..ft.properties[FEW + 1].clone() });
    }
    next
}

/// None, the usual, or four times as many.
fn some(rng: &mut StdRng, usual: u32) -> u32 {
    match rng.random_range(0..4) {
        0 => 0,
        1 => usual * 4,
        _ => usual,
    }
}

impl Rates {
    fn some(rng: &mut StdRng) -> Rates {
        Rates {
            fails: some(rng, 20),
            late: some(rng, 120),
            very_late: some(rng, 10),
            late_commit: some(rng, 60),
            lagging_tail: some(rng, 60),
            late_row: some(rng, 30),
            mingled: some(rng, 100),
            lost_lease: some(rng, 100),
            doubled_lease: some(rng, 50),
        }
    }

    fn all(&self) -> [u32; 9] {
        let Rates { fails, late, very_late, late_commit, lagging_tail, late_row, mingled, lost_lease, doubled_lease } =
            *self;
        [fails, late, very_late, late_commit, lagging_tail, late_row, mingled, lost_lease, doubled_lease]
    }
}

impl Upsets {
    fn some(rng: &mut StdRng) -> Upsets {
        Upsets { crash: some(rng, 3_000), pause: some(rng, 8_000), outage: some(rng, 12_000), clock: some(rng, 10_000) }
    }

    fn all(&self) -> [u32; 4] {
        [self.crash, self.pause, self.outage, self.clock]
    }
}
