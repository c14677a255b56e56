//! I2: a read shows each id once, in no older version than at its position, which is no earlier than what was promised; what
//! it counts is what it shows; and per instance reads never go back.

use std::collections::BTreeMap;

use alluvium::model::{Feature, Offset};
use alluvium::query::compare;

use super::i5::expected_page;
use crate::recorded::{Read, Recorded, Told};

pub fn check(recorded: &Recorded) -> Result<(), String> {
    for read in &recorded.events.reads {
        each_once(read)?;
        none_older(recorded, read)?;
        if !reaches(&read.position, &read.promised) {
            return Err(format!(
                "{:?} was promised, and the answer is that of {:?}: {read:?}",
                read.promised, read.position
            ));
        }
    }
    for write in &recorded.events.writes {
        if let Told::Written { ends, applied: Some(applied), .. } = &write.told
            && let Some((name, end)) = ends.iter().find(|(name, end)| !reaches(&applied[*name], end))
        {
            return Err(format!("told to be visible in {name} at {end:?}, with {applied:?} applied: {}", write.what));
        }
    }
    never_back(recorded)
}

/// True when `a` is at or behind `b` in every partition.
fn reaches(a: &[Offset], b: &[Offset]) -> bool {
    b.iter().zip(a).all(|(b, a)| a >= b)
}

fn each_once(read: &Read) -> Result<(), String> {
    if read.features().len() != read.items.len() {
        return Err(format!("an id came twice: {read:?}"));
    }
    let sorted =
        |pair: &[(Feature, Offset)]| matches!(pair, [(a, _), (b, _)] if compare(a, b, &read.query.sort).is_lt());
    if !read.query.any_order && !read.items.windows(2).all(sorted) {
        return Err(format!("an answer out of order: {read:?}"));
    }
    Ok(())
}

fn none_older(recorded: &Recorded, read: &Read) -> Result<(), String> {
    let shown = read.features();
    let (page, all) = expected_page(recorded, read);
    if read.is_merged()
        && let Some((id, _)) = page.iter().find(|(id, (_, version))| shown.get(*id).is_none_or(|(_, v)| v < version))
    {
        return Err(format!("'{id}' is missing or older than at its position\n  {read:?}\n  the log says {page:?}"));
    }
    let counts = if read.is_merged() { Some(all as u64) } else { read.is_whole().then_some(shown.len() as u64) };
    if counts.is_some_and(|n| read.counts.iter().any(|counted| *counted != n)) {
        return Err(format!("counted what is not there: {read:?}"));
    }
    Ok(())
}

/// Not even over a restart: an instance answers when it has come to the log's end as of its start.
fn never_back(recorded: &Recorded) -> Result<(), String> {
    let mut last: BTreeMap<(u64, usize, &str), &Read> = BTreeMap::new();
    for read in &recorded.events.reads {
        let of = (read.client, read.at, read.query.feature_type.as_str());
        if let Some(earlier) = last.insert(of, read)
            && !reaches(&read.position, &earlier.position)
        {
            return Err(format!("instance {} went back from {earlier:?} to {read:?}", read.at));
        }
    }
    Ok(())
}
