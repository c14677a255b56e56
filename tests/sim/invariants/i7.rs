//! I7: a transaction is all or nothing after any crash: it is one append, of which the log has all records or none, and no
//! read shows a part of what a transaction did to one partition.

use std::collections::BTreeMap;

use alluvium::model::Change;

use crate::recorded::Recorded;

pub fn check(recorded: &Recorded) -> Result<(), String> {
    for (n, append) in recorded.logs.appends.iter().enumerate() {
        if append.taken != 0 && append.taken != append.asked {
            return Err(format!("the log has {} of the {} records of append {n}", append.taken, append.asked));
        }
    }
    one_append(recorded)?;
    for read in &recorded.events.reads {
        let log = recorded.logs.of(&read.query.feature_type);
        // A state has the offset of its transaction's last record.
        if let Some((f, version)) = read.items.iter().find(|(f, version)| *version >= log.bound(&read.position, &f.id))
        {
            return Err(format!("'{}' of version {version} shows before its transaction was whole: {read:?}", f.id));
        }
    }
    Ok(())
}

/// What one write put stands in one append.
fn one_append(recorded: &Recorded) -> Result<(), String> {
    let mut appends: BTreeMap<i64, usize> = BTreeMap::new();
    for record in recorded.logs.types.values().flat_map(|log| &log.records) {
        let puts = record.changes.iter().filter_map(|c| match c {
            Change::Put(f) => f.properties.get(1).and_then(crate::clients::number),
            _ => None,
        });
        for number in puts {
            if *appends.entry(number).or_insert(record.append) != record.append {
                return Err(format!("write {number} was appended in pieces"));
            }
        }
    }
    Ok(())
}
