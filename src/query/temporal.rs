//! How times relate to each other (ISO 19108), by the names of FES 2.0 and of CQL2.

use super::filter::{CompareOp, Filter, Operand};

/// A time: an instant where both ends are the same, else what lies between them; `None` where it is open.
#[derive(Clone, Debug)]
pub struct Period {
    pub begin: Option<Operand>,
    pub end: Option<Operand>,
}

impl Period {
    pub fn instant(at: Operand) -> Period {
        Period { begin: Some(at.clone()), end: Some(at) }
    }

    fn is_instant(&self) -> bool {
        self.begin.is_some() && self.begin == self.end
    }
}

/// One end of a period: an open one is before, or after, all that has a time.
#[derive(Clone, Copy)]
enum End<'a> {
    First,
    At(&'a Operand),
    Last,
}

/// The relation `name` (in lower case) from `a` to `b`. An instant begins, ends or lies within a period, and never holds, meets
/// or overlaps one. `None`: there is no such relation.
pub fn relation(name: &str, a: &Period, b: &Period) -> Option<Filter> {
    use CompareOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let [a_begin, b_begin] = [a, b].map(|p| p.begin.as_ref().map_or(End::First, End::At));
    let [a_end, b_end] = [a, b].map(|p| p.end.as_ref().map_or(End::Last, End::At));
    let before = || compare(Less, a_end, b_begin);
    let after = || compare(Greater, a_begin, b_end);
    let never = || Filter::constant(false);
    Some(match name {
        "before" => before(),
        "after" => after(),
        "disjoint" => Filter::Or(vec![after(), before()]),
        "anyinteracts" | "intersects" => {
            compare(GreaterOrEqual, a_end, b_begin).and(compare(LessOrEqual, a_begin, b_end))
        }
        "tequals" | "equals" if a.is_instant() && b.is_instant() => compare(Equal, a_begin, b_begin),
        "tequals" | "equals" => compare(Equal, a_begin, b_begin).and(compare(Equal, a_end, b_end)),
        "during" | "begins" | "starts" | "ends" | "finishes" if b.is_instant() => never(),
        "during" => compare(Greater, a_begin, b_begin).and(compare(Less, a_end, b_end)),
        "begins" | "starts" => compare(Equal, a_begin, b_begin).and(compare(Less, a_end, b_end)),
        "ends" | "finishes" => compare(Equal, a_end, b_end).and(compare(Greater, a_begin, b_begin)),
        "tcontains" | "contains" => return relation("during", b, a),
        "begunby" | "startedby" => return relation("starts", b, a),
        "endedby" | "finishedby" => return relation("finishes", b, a),
        "meets" | "metby" | "toverlaps" | "overlaps" | "overlappedby" if a.is_instant() || b.is_instant() => never(),
        "meets" => compare(Equal, a_end, b_begin),
        "metby" => compare(Equal, a_begin, b_end),
        "toverlaps" | "overlaps" => {
            compare(Less, a_begin, b_begin).and(compare(Greater, a_end, b_begin)).and(compare(Less, a_end, b_end))
        }
        "overlappedby" => return relation("overlaps", b, a),
        _ => return None,
    })
}

fn compare(op: CompareOp, a: End<'_>, b: End<'_>) -> Filter {
    let place = |end: End<'_>| match end {
        End::First => 0,
        End::At(_) => 1,
        End::Last => 2,
    };
    match (a, b) {
        (End::At(a), End::At(b)) => Filter::Compare { op, left: a.clone(), right: b.clone(), match_case: true },
        _ => Filter::constant(op.holds(place(a).cmp(&place(b)))),
    }
}
