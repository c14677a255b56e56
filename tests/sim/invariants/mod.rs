//! What must hold of every run, whatever went wrong in it: a file for each invariant, which holds it against what was
//! recorded, and says what broke it.

mod i1;
mod i2;
mod i3;
mod i4;
mod i5;
mod i6;
mod i7;
mod i8;
mod i9;

use crate::recorded::Recorded;

/// `Err`: how it was broken.
type Check = fn(&Recorded) -> Result<(), String>;

pub const ALL: [(&str, Check); 9] = [
    ("I1: an acknowledged write is never lost", i1::check),
    ("I2: a read shows each id once, at its position, and never goes back", i2::check),
    ("I3: what was deleted or has moved never reappears", i3::check),
    ("I4: what went quiet is in the delegate as it was last written, in time", i4::check),
    ("I5: instances that have applied the same position answer alike", i5::check),
    ("I6: a late or doubled sweeper does no harm", i6::check),
    ("I7: a transaction is all or nothing", i7::check),
    ("I8: index, log and what is to be replayed stay bounded", i8::check),
    ("I9: concurrent patches of different properties are all kept", i9::check),
];

/// The invariants that are broken, by name, and how.
pub fn broken(recorded: &Recorded) -> Vec<String> {
    ALL.iter().filter_map(|(name, check)| Some(format!("{name}\n  {}", check(recorded).err()?))).collect()
}
