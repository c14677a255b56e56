//! I5: two instances that have applied the same position answer the same query alike. An answer names its position, and is
//! the one that the log gives there; so any two of one position are.

use alluvium::query::{compare, is_after};

use crate::oracle::{Features, matching};
use crate::recorded::{Read, Recorded};

pub fn check(recorded: &Recorded) -> Result<(), String> {
    for read in &recorded.events.reads {
        let (page, _) = expected_page(recorded, read);
        let answer = read.features();
        let alike =
            if read.is_merged() { answer == page } else { answer.iter().all(|(id, f)| page.get(id) == Some(f)) };
        if !alike {
            return Err(format!("an answer that is not the log's: {read:?}\n  the log says {page:?}"));
        }
    }
    for (name, at_rest) in recorded.events.rest.iter().flat_map(|rest| &rest.types) {
        let log = recorded.logs.of(name);
        let expected = log.at(&log.end);
        for (n, answer) in at_rest.answers.iter().enumerate() {
            if *answer != expected {
                return Err(format!("at rest instance {n} answers {answer:?}\n  the log says {expected:?}"));
            }
        }
    }
    Ok(())
}

/// What the log says that a read must show, and how many features match whatever the page. A page of one tier is not told
/// by the log alone: of that all that match.
pub fn expected_page(recorded: &Recorded, read: &Read) -> (Features, usize) {
    let query = &read.query;
    let all = matching(&recorded.logs.of(&query.feature_type).at(&read.position), &query.filter);
    let count = all.len();
    if read.is_whole() || !read.is_merged() {
        return (all, count);
    }
    let mut sorted: Vec<_> = all.into_values().collect();
    sorted.sort_by(|(a, _), (b, _)| compare(a, b, &query.sort));
    sorted.retain(|(f, _)| query.after.as_ref().is_none_or(|cursor| is_after(f, cursor, &query.sort)));
    let (start, limit) = (query.start as usize, query.limit.map_or(usize::MAX, |l| l as usize));
    let page = sorted.into_iter().skip(start).take(limit);
    (page.map(|(f, version)| (f.id.to_string(), (f, version))).collect(), count)
}
