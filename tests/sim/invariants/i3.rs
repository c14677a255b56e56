//! I3: a deleted or moved feature never reappears from the delegate: whatever a read shows was there at its position, and
//! matched.

use super::i5::expected_page;
use crate::recorded::Recorded;

pub fn check(recorded: &Recorded) -> Result<(), String> {
    for read in &recorded.events.reads {
        let (page, _) = expected_page(recorded, read);
        // Of one tier a page cannot be told without knowing what the other has.
        if let Some((f, version)) = read.items.iter().find(|(f, _)| !page.contains_key(&*f.id)) {
            return Err(format!("'{}' of version {version} is gone\n  {read:?}\n  the log says {page:?}", f.id));
        }
    }
    Ok(())
}
