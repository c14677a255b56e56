//! How an instant relates to an instant or a period (ISO 19108), by the names of FES 2.0 and of CQL2.

use super::filter::{CompareOp, Filter};

/// The relation `name` (in lower case) between what `compare` compares with a time, and the time from `begin` to `end`; both
/// are equal of an instant, and `None` where a period is open. An instant begins, ends or lies within a period, and never
/// holds, meets or overlaps one. `None`: there is no such relation.
pub fn relation<T: Clone + PartialEq>(
    name: &str,
    begin: Option<T>,
    end: Option<T>,
    compare: &dyn Fn(CompareOp, T) -> Filter,
) -> Option<Filter> {
    let never = || Filter::ids([]);
    let instant = begin.is_some() && begin == end;
    let at = |op, bound: Option<T>| bound.map_or_else(never, |v| compare(op, v));
    let within = |from, to| {
        let from = begin.clone().map_or(Filter::All, |v| compare(from, v));
        from.and(end.clone().map_or(Filter::All, |v| compare(to, v)))
    };
    Some(match name {
        "after" => at(CompareOp::Greater, end),
        "before" => at(CompareOp::Less, begin),
        "during" if !instant => within(CompareOp::Greater, CompareOp::Less),
        "anyinteracts" | "intersects" => within(CompareOp::GreaterOrEqual, CompareOp::LessOrEqual),
        "disjoint" => Filter::Or(vec![at(CompareOp::Greater, end), at(CompareOp::Less, begin)]),
        "begins" | "starts" if !instant => at(CompareOp::Equal, begin),
        "ends" | "finishes" if !instant => at(CompareOp::Equal, end),
        "tequals" | "equals" if instant => at(CompareOp::Equal, begin),
        "during" | "begins" | "starts" | "ends" | "finishes" | "tequals" | "equals" | "begunby" | "startedby"
        | "endedby" | "finishedby" | "tcontains" | "contains" | "meets" | "metby" | "toverlaps" | "overlaps"
        | "overlappedby" => never(),
        _ => return None,
    })
}
