//! How every background step runs: spawned here and nowhere else, restarted after an error with back-off, ended together.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// A group of tasks with one life.
#[derive(Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    aborts: Mutex<Vec<AbortHandle>>,
}

impl Tasks {
    /// Cancelled when the group should end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tracker.spawn(task).abort_handle();
        let mut aborts = self.aborts.lock();
        aborts.retain(|h| !h.is_finished());
        aborts.push(handle);
    }

    /// Runs `step` for ever: again at once when it returns, after a back-off when it fails. `failed` is told each error.
    pub fn supervise<F, E>(
        &self,
        mut step: impl FnMut() -> F + Send + 'static,
        failed: impl Fn(&E) + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send,
        E: Send,
    {
        let token = self.token();
        self.spawn(async move {
            let mut back_off = FIRST_BACK_OFF;
            let run = async {
                loop {
                    match step().await {
                        Ok(()) => back_off = FIRST_BACK_OFF,
                        Err(e) => {
                            failed(&e);
                            tokio::time::sleep(back_off).await;
                            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = run => {}
            }
        });
    }

    /// Asks all to end and waits for them.
    pub async fn shutdown(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Ends all at once, wherever they are.
    pub fn abort(&self) {
        self.token.cancel();
        self.aborts.lock().drain(..).for_each(|h| h.abort());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Runs a future to its end even if the caller goes away: for steps that may not be broken off in the middle.
pub async fn uncancelled<T: Send + 'static>(step: impl Future<Output = T> + Send + 'static) -> Option<T> {
    tokio::spawn(step).await.ok()
}
