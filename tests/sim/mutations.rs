//! What each safeguard is for: with any of them switched off, the simulation must fail.
//!
//! `make sim-mutations SEEDS=n` prints, for each, how many of n seeds fail, the first of them, and what it broke.

use std::ops::Range;

use Missing::{Contract, Without};
use alluvium::sabotage::Safeguard::*;
use alluvium::sabotage::{Safeguard, switch_off};

use crate::plan::{Broken, Plan};
use crate::world::run;

#[derive(Clone, Copy)]
enum Missing {
    /// More than one where each is enough by itself.
    Without(&'static [Safeguard]),
    /// A part of the world breaks its contract.
    Contract(Broken),
}

/// What is missing, what it is, and in how many seeds it must be found, with room.
const MUTATIONS: [(Missing, &str, u64); 27] = [
    (Without(&[Masking]), "rows are hidden whose id is in the index", 20),
    (Without(&[MaskingOfAll]), "also those whose newer version does not match", 40),
    (Without(&[OwnMoment]), "what enters the index during a read hides nothing from it", 200),
    (Without(&[Epochs]), "what is evicted during a read goes on hiding for it", 400),
    (Without(&[IndexFirst]), "a read looks at the index first, at the delegate second", 400),
    (Without(&[AsOf]), "a read waits until it is not behind the delegate", 200),
    (Without(&[ReadinessGate]), "a starting instance answers when it has caught up", 200),
    (Without(&[OwnWrites]), "a write is answered when it is visible", 20),
    (Without(&[Tombstones]), "a deleted feature leaves a tombstone", 40),
    (Without(&[BaseLoads]), "a patch loads the row that it builds on", 40),
    (Without(&[DirtySince]), "a patch continues its feature's dirtiness", 400),
    (Without(&[EventTime]), "a change with an older event time does nothing", 40),
    (Without(&[Conditions]), "a conditional change is decided at its place in the log", 20),
    (Without(&[WholeRuns]), "a transaction is applied when it is whole", 40),
    (Without(&[LostMarker]), "a marker that was lost is written again", 40),
    (Without(&[BeginAnew]), "an instance behind the cut of the log begins anew", 400),
    (
        Without(&[ServeFrom, Versions]),
        "a record that its row includes is skipped, or nothing is answered before that row's place",
        400,
    ),
    (Without(&[SweeperCaughtUp]), "a sweeper that lags behind another one persists nothing", 400),
    (Without(&[CompareAndSet]), "the watermark moves by compare-and-set", 1_000),
    (Without(&[Refused]), "what the delegate refuses stays in the index", 40),
    (Without(&[RefusedAtStart]), "and is taken up by an instance that starts", 200),
    (Without(&[UnknownUntilResolved]), "a feature whose base is away is not answered for", 200),
    (Without(&[DurableWhenResolved]), "nor called durable", 200),
    (Without(&[Tails]), "what stands apart of a track is read with its line", 40),
    (Contract(Broken::LogForgets), "the log has what it acknowledged", 20),
    (Contract(Broken::LogTears), "the log takes an append whole or not at all", 40),
    (Contract(Broken::RefusedStopsAll), "what is refused does not stop the rest", 40),
];

impl Missing {
    fn name(self) -> String {
        match self {
            Without(safeguards) => {
                let names: Vec<String> = safeguards.iter().map(|s| format!("{s:?}")).collect();
                names.join(" and ")
            }
            Contract(broken) => format!("{broken:?}"),
        }
    }

    /// What the first of these seeds that fails without it breaks.
    fn first_found(self, seeds: Range<u64>) -> Option<(u64, Vec<String>)> {
        switch_off(if let Without(safeguards) = self { safeguards } else { &[] });
        let found = seeds.map(|seed| (seed, run(self.plan(seed)).violations)).find(|(_, v)| !v.is_empty());
        switch_off(&[]);
        found
    }

    /// What the seed decides, with what is rare in an average run aimed at.
    fn plan(self, seed: u64) -> Plan {
        let plan = Plan::new(seed);
        match self {
            Without([BeginAnew]) => plan.in_which_some_stand_still(),
            Without([SweeperCaughtUp]) => plan.in_which_lagging_sweepers_try_again_what_is_refused(),
            Without([ServeFrom, Versions]) => plan.in_which_instances_lag_and_patch(),
            Without([ReadinessGate]) => plan.in_which_instances_crash(),
            Contract(Broken::RefusedStopsAll) => {
                plan.in_which_only_the_tables_refuse().breaking(Broken::RefusedStopsAll)
            }
            Contract(broken) => plan.breaking(broken),
            Without(_) => plan,
        }
    }
}

/// The names of invariants, out of how they were broken.
fn names(violations: &[String]) -> String {
    let numbers = violations.iter().filter_map(|v| v.strip_prefix('I')).filter_map(|v| v.split_once(':'));
    let names: Vec<String> = numbers.map(|(n, _)| format!("I{n}")).collect();
    if names.is_empty() { "an answer".into() } else { names.join(", ") }
}

/// Prints the table of the safeguards; with `SIM_SEEDS=n` also how many of n seeds fail without each.
#[test]
fn without_a_safeguard_the_simulation_fails() {
    let seeds = crate::number("SIM_SEEDS").unwrap_or(0);
    println!("| without | what it does | fails in {seeds} seeds | seeds until then | broken |\n|---|---|---|---|---|");
    for (missing, what, most) in MUTATIONS {
        let found: Vec<_> = (0..seeds).filter_map(|seed| missing.first_found(seed..seed + 1)).collect();
        let first = found.first().cloned().or_else(|| missing.first_found(seeds..most));
        let (seed, violations) =
            first.unwrap_or_else(|| panic!("{}: {most} seeds do not miss that {what}", missing.name()));
        println!("| {} | {what} | {} | {} | {} |", missing.name(), found.len(), seed + 1, names(&violations));
    }
}
