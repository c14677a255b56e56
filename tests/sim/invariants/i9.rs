//! I9: concurrent patches of different properties are all kept: each property that a read shows is as the last change set it
//! that named it, whatever was changed beside it since, and by whom.

use crate::oracle::Features;
use crate::recorded::Recorded;

pub fn check(recorded: &Recorded) -> Result<(), String> {
    for read in &recorded.events.reads {
        kept(recorded, &read.query.feature_type, &read.position, &read.features())?;
    }
    for (name, at_rest) in recorded.events.rest.iter().flat_map(|rest| &rest.types) {
        let end = &recorded.logs.of(name).end;
        kept(recorded, name, end, &at_rest.rows)?;
    }
    Ok(())
}

fn kept(recorded: &Recorded, name: &str, position: &[u64], features: &Features) -> Result<(), String> {
    let log = recorded.logs.of(name);
    for (id, (feature, _)) in features {
        for slot in 0..log.ft.properties.len() {
            let assigned = log.assigned(id, slot, log.bound(position, id));
            if let Some(a) = assigned.filter(|a| a.value != *feature.value(slot)) {
                return Err(format!(
                    "property {slot} of '{id}' was set by {a:?}, at {position:?} it is shown in {feature:?}"
                ));
            }
        }
    }
    Ok(())
}
