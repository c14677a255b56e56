//! Simulation: several instances of the real store over one log, one delegate and one group of leases, all in memory behind
//! the same traits as the real ones, wrapped in faults. A seed decides everything: who writes what, who reads what, which
//! call is late or fails before or after its effect, who crashes and when. What everybody was told is written down, and held
//! against the store's invariants by a plain map that replays the log.
//!
//! `make sim SEEDS=n` runs n fresh seeds. `SIM_SEED=s` runs one, its story told; `SIM_FIRST` and `SIM_SEEDS` choose a range.

#![allow(clippy::unwrap_used)]

mod clients;
mod invariants;
mod mutations;
mod oracle;
mod plan;
mod recorded;
mod rest;
mod seams;
mod world;

use plan::Plan;
use world::{Outcome, run};

/// As many as take some minutes.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn holds(plan: Plan) -> Outcome {
    let seed = plan.seed;
    let outcome = run(plan);
    let replay = format!("SIM_SEED={seed} cargo test --locked --test sim every_answer -- --nocapture");
    assert!(outcome.violations.is_empty(), "seed {seed}\n{}\nreplay it: {replay}", outcome.violations.join("\n"));
    outcome
}

#[test]
fn every_answer_is_what_the_log_says() {
    if let Some(seed) = number("SIM_SEED") {
        holds(Plan::new(seed).told());
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds = first..first + number("SIM_SEEDS").unwrap_or(SEEDS);
    let (mut reads, mut writes, mut sweeps, mut crashes) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let outcome = holds(Plan::new(seed));
        reads += outcome.reads;
        writes += outcome.writes;
        sweeps += outcome.sweeps;
        crashes += outcome.crashes;
    }
    println!("seeds {seeds:?}: {reads} reads, {writes} writes, {sweeps} sweeps, {crashes} crashes");
    let happened = [reads, writes, sweeps, crashes];
    assert!(happened.iter().all(|n| *n > 0), "a simulation in which nothing happens proves nothing");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 0..6 {
        let (once, again) = (run(Plan::new(seed)).story, run(Plan::new(seed)).story);
        assert!(once.len() > 100, "seed {seed} tells little");
        let differ = once.iter().zip(&again).find(|(a, b)| a != b);
        assert!(differ.is_none() && once.len() == again.len(), "seed {seed}: {differ:?}");
    }
}
