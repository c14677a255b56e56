//! I8: memory stays bounded. Where nothing goes wrong, what a restart must replay reaches back no further than `max_dirty`,
//! however busy the writers are; and when all is quiet, index and log are given back.

use alluvium::model::Offset;

use super::i4::SLACK_MS;
use crate::recorded::Recorded;
use crate::world::SWEEP_INTERVAL;

pub fn check(recorded: &Recorded) -> Result<(), String> {
    if recorded.plan.is_calm() {
        replay_is_bounded(recorded)?;
    }
    let Some(rest) = &recorded.events.rest else { return Ok(()) };
    for (name, at_rest) in &rest.types {
        if at_rest.index.iter().any(|n| *n > 0) {
            return Err(format!("at rest the indexes of {name} hold {:?}", at_rest.index));
        }
        for (partition, (log, watermark)) in at_rest.log.iter().zip(&at_rest.watermarks).enumerate() {
            let left = |offset: Offset| offset >= watermark.durable_through;
            let mut records = recorded.logs.of(name).records.iter().filter(|r| r.partition as usize == partition);
            if records.any(|r| left(r.offset)) || log.start != watermark.durable_through {
                return Err(format!("at rest the log of {name}, partition {partition}, has {log:?}: {watermark:?}"));
            }
        }
    }
    Ok(())
}

fn replay_is_bounded(recorded: &Recorded) -> Result<(), String> {
    // A sweeper looks so long after its last turn has ended, and that turn may have been one of several batches.
    let sweeps = 2 * SWEEP_INTERVAL.as_millis() as u64;
    let most = recorded.plan.max_dirty_ms.max(recorded.plan.expiry_ms) + sweeps + SLACK_MS;
    for look in &recorded.events.looks {
        let log = recorded.logs.of(&look.feature_type);
        let of_partition = log.records.iter().filter(|r| r.partition == look.partition);
        let mut undurable = of_partition.filter(|r| r.offset >= look.durable_through);
        if let Some(r) = undurable.next().filter(|r| r.at_ms + most < look.at_ms) {
            return Err(format!("offset {} of {} ms is still to be replayed: {look:?}", r.offset, r.at_ms));
        }
    }
    Ok(())
}
