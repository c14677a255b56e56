//! Loads what changes build on whose base the delegate did not give when the tailer asked, and has them applied: the tailer
//! goes on meanwhile, and only readers of those features wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::state::TypeState;
use super::tailer;
use crate::delegate::{Delegate, DelegateError};
use crate::model::FeatureId;
use crate::transient::TransientIndex;

/// Features asked for at once.
const BATCH: usize = 1_000;

/// Waits until something is unresolved, and resolves what it can. Fails while the delegate is away: to be tried again.
pub async fn run(state: &Arc<TypeState>, delegate: &Arc<dyn Delegate>) -> Result<(), DelegateError> {
    while !state.wait_until(Instant::now() + tailer::DAY, TransientIndex::has_unresolved).await {}
    let (asked, generation, feature_type) = {
        let index = state.index.read();
        (index.unresolved(BATCH), index.generation(), state.feature_type())
    };
    let ids: Vec<FeatureId> = asked.iter().map(|(id, _)| id.clone()).collect();
    let least = state.least();
    let loaded = delegate.load(&feature_type, &ids).await?;
    state.check_not_put_back(&least, &loaded.watermarks).map_err(|e| DelegateError::Unavailable(e.to_string()))?;
    if state.bases_away.swap(false, Ordering::Relaxed) {
        tracing::info!(feature_type = %feature_type.name, "the long-term store gives bases again");
    }
    {
        let mut index = state.index.write();
        if index.generation() == generation && state.is_at(&feature_type) {
            let known = tailer::take_in(state, &mut index, &ids, loaded);
            index.resolve(&asked, &known);
        }
    }
    state.moved();
    Ok(())
}
