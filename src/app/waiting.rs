//! Waiting for a part that is away as the server starts. One that is there and says no is not waited for: its settings are
//! wrong, and a server that never comes up would only hide that.

use std::time::Duration;

use crate::delegate::DelegateError;
use crate::log::LogError;
use crate::store::CatalogueError;
use crate::web::starting::Awaited;

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(4);

/// Why a step of the start failed.
pub enum Failure {
    /// Later it may work.
    Away(String),
    Wrong(anyhow::Error),
}

/// Tries until it works; `what` is awaited meanwhile, for all to see.
pub async fn until_there<T, F, E>(
    awaited: &Awaited,
    what: &'static str,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Failure>,
{
    let mut back_off = FIRST_BACK_OFF;
    loop {
        let why = match attempt().await.map_err(Into::into) {
            Ok(there) => {
                awaited.lock().remove(what);
                return Ok(there);
            }
            Err(Failure::Wrong(error)) => return Err(error),
            Err(Failure::Away(why)) => why,
        };
        tracing::warn!(retry_ms = back_off.as_millis() as u64, "waiting for {what}: {why}");
        awaited.lock().insert(what, why);
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

impl From<DelegateError> for Failure {
    fn from(e: DelegateError) -> Failure {
        match e {
            DelegateError::Unavailable(why) => Failure::Away(why),
            wrong => Failure::Wrong(wrong.into()),
        }
    }
}

impl From<LogError> for Failure {
    fn from(e: LogError) -> Failure {
        match e {
            LogError::Unavailable(why) | LogError::OutcomeUnknown(why) => Failure::Away(why),
            wrong => Failure::Wrong(wrong.into()),
        }
    }
}

impl From<CatalogueError> for Failure {
    fn from(e: CatalogueError) -> Failure {
        match e {
            CatalogueError::Unavailable(why) => Failure::Away(why),
            wrong => Failure::Wrong(wrong.into()),
        }
    }
}
