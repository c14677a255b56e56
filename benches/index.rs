//! The transient index with `FEATURES` ships in it (a million unless the environment says otherwise).

mod ships;

use std::hint::black_box;
use std::time::{Duration, Instant};

use alluvium::model::{Change, Offset, Persisted, Rect};
use alluvium::query::{CompareOp, Filter, Operand};
use alluvium::transient::{AgeLimits, Step, TransientIndex};
use criterion::{BatchSize, Criterion};
use rustc_hash::FxHashMap;
use ships::Fleet;

/// Features of one sweep.
const SWEEP: usize = 5_000;
/// Positions that are prepared before the clock runs.
const PREPARED: u64 = 10_000;

/// The index, kept at its size: whoever adds ships sweeps as many away.
struct World {
    fleet: Fleet,
    index: TransientIndex,
    /// By number.
    positions: Vec<(f64, f64)>,
    offset: Offset,
}

impl World {
    fn new(features: u64) -> World {
        let mut world = World {
            fleet: Fleet::new(),
            index: TransientIndex::new(&ships::feature_type(), &[0]),
            positions: Vec::new(),
            offset: 0,
        };
        let changes = world.new_ships(features);
        world.apply(&changes);
        world
    }

    fn new_ships(&mut self, n: u64) -> Vec<Change> {
        let ship = |_| {
            let (number, at) = (self.positions.len() as u64, self.fleet.anywhere());
            self.positions.push(at);
            Change::Put(self.fleet.ship(number, at))
        };
        (0..n).map(ship).collect()
    }

    /// Ships picked at random, a step on or somewhere else altogether.
    fn moves(&mut self, n: u64, far: bool) -> Vec<Change> {
        let report = |_| {
            let number = self.fleet.pick(self.positions.len() as u64);
            let at = &mut self.positions[number as usize];
            *at = if far { self.fleet.anywhere() } else { self.fleet.nearby(*at) };
            Change::Put(self.fleet.ship(number, *at))
        };
        (0..n).map(report).collect()
    }

    /// One record each, a millisecond apart.
    fn apply(&mut self, changes: &[Change]) {
        let bases = FxHashMap::default();
        for change in changes {
            let step = Step { partition: 0, offset: self.offset, since: self.offset, time_ms: self.offset as i64 };
            self.index.apply(step, std::slice::from_ref(change), &bases);
            self.offset += 1;
        }
    }

    /// Looks for the oldest ones and lets them leave, as a sweeper does but for the delegate.
    fn sweep(&mut self) {
        let limits = AgeLimits {
            expired_before_ms: Some(i64::MAX),
            dirty_before_ms: i64::MAX,
            durable_through: 0,
            batch: SWEEP,
            tails: false,
        };
        let Some(aged) = self.index.aged(0, limits) else { return };
        let marker =
            Persisted { durable_through: aged.durable_through, evict_through: aged.evict_through, except: Vec::new() };
        self.index.apply_persisted(0, self.offset, &marker);
        self.offset += 1;
    }

    /// Times `n` changes, prepared without the clock running.
    fn time(&mut self, n: u64, prepare: impl Fn(&mut World, u64) -> Vec<Change>) -> Duration {
        let mut spent = Duration::ZERO;
        let mut left = n;
        while left > 0 {
            let changes = prepare(self, left.min(PREPARED));
            left -= changes.len() as u64;
            let begin = Instant::now();
            self.apply(&changes);
            spent += begin.elapsed();
        }
        spent
    }
}

/// A box around that point with about `wanted` ships, found by doubling.
fn box_of_about(index: &TransientIndex, (x, y): (f64, f64), wanted: usize) -> Filter {
    let around = |r: f64| Filter::Bbox(Rect { min_x: x - r, min_y: y - r, max_x: x + r, max_y: y + r });
    let mut reach = 1e-4;
    while index.select(&around(reach)).len() < wanted {
        reach *= 1.1;
    }
    around(reach)
}

fn main() {
    let features = std::env::var("FEATURES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut group = criterion.benchmark_group("index");
    let mut world = World::new(features);

    let boxes: Vec<Filter> = (0..200)
        .map(|_| {
            let at = world.fleet.anywhere();
            box_of_about(&world.index, at, 50)
        })
        .collect();
    let mut next = boxes.iter().cycle();
    group.bench_function("bbox_of_50", |b| {
        b.iter_batched(|| next.next(), |f| f.map(|f| world.index.select(f)), BatchSize::SmallInput)
    });

    let slow = Filter::Compare {
        op: CompareOp::Less,
        left: Operand::Property(4),
        right: Operand::Literal(alluvium::model::Value::Number(15.0)),
        match_case: true,
    };
    let narrowed: Vec<Filter> = boxes.iter().map(|b| b.clone().and(slow.clone())).collect();
    let mut next = narrowed.iter().cycle();
    group.bench_function("bbox_of_50_and_speed", |b| {
        b.iter_batched(|| next.next(), |f| f.map(|f| world.index.select(f)), BatchSize::SmallInput);
    });

    let mut number = 0;
    group.bench_function("by_id", |b| {
        b.iter_batched(
            || {
                number = (number + 7919) % features;
                format!("s{number:07}")
            },
            |id| black_box(world.index.get(&id).is_some()),
            BatchSize::SmallInput,
        );
    });

    group.bench_function("put_small_move", |b| b.iter_custom(|n| world.time(n, |w, n| w.moves(n, false))));
    group.bench_function("put_jump", |b| b.iter_custom(|n| world.time(n, |w, n| w.moves(n, true))));
    // From here on the oldest ones leave, so that the index keeps its size.
    group.bench_function("put_new", |b| {
        b.iter_custom(|n| {
            let spent = world.time(n, World::new_ships);
            while world.index.len() as u64 > features {
                world.sweep();
            }
            spent
        });
    });
    group.bench_function("sweep_5000", |b| {
        b.iter_custom(|n| {
            let mut spent = Duration::ZERO;
            for _ in 0..n {
                let fresh = world.new_ships(SWEEP as u64);
                world.apply(&fresh);
                let begin = Instant::now();
                world.sweep();
                spent += begin.elapsed();
            }
            spent
        });
    });
    group.finish();
    criterion.final_summary();
}
