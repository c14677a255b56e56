//! How every background step runs: spawned here and nowhere else, restarted after an error or a panic with back-off, watched,
//! ended together.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// A step that lasted longer before it failed begins with the first back-off again.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// A group of tasks with one life.
#[derive(Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    aborts: Mutex<Vec<AbortHandle>>,
    /// Of the supervised ones.
    watched: Mutex<Vec<Arc<Mutex<TaskStatus>>>>,
    /// Tells the back-offs of instances apart.
    instance: String,
}

/// What a supervised task is doing.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    pub name: String,
    /// It failed and waits until it is tried again.
    pub backing_off: bool,
    /// How often it has failed, and was or will be begun again.
    pub restarts: u64,
    /// How often of these it panicked: a fault of the program's.
    pub panics: u64,
    pub last_error: Option<(String, Instant)>,
}

impl Tasks {
    /// The tasks of one instance of several, whose back-offs differ from those of the others.
    pub fn of(instance: &str) -> Tasks {
        let mut tasks = Tasks::default();
        instance.clone_into(&mut tasks.instance);
        tasks
    }

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

    /// Runs `step` for ever: again at once when it returns, after a back-off when it fails or panics. `failed` is told each
    /// error.
    pub fn supervise<F, E>(
        &self,
        name: impl Into<String>,
        mut step: impl FnMut() -> F + Send + 'static,
        failed: impl Fn(&str) + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send,
        E: Display + Send,
    {
        let name = name.into();
        let watched = TaskStatus { name: name.clone(), backing_off: false, restarts: 0, panics: 0, last_error: None };
        let watched = Arc::new(Mutex::new(watched));
        self.watched.lock().push(watched.clone());
        let (token, instance) = (self.token(), self.instance.clone());
        self.spawn(async move {
            let run = async {
                let mut back_off = FIRST_BACK_OFF;
                loop {
                    let begun = Instant::now();
                    let outcome = caught(step()).await;
                    if outcome.is_ok() || begun.elapsed() > LONGEST_BACK_OFF {
                        back_off = FIRST_BACK_OFF;
                    }
                    let Err(failure) = outcome else { continue };
                    failed(&failure.what);
                    let restarts = {
                        let mut status = watched.lock();
                        status.backing_off = true;
                        status.restarts += 1;
                        status.panics += u64::from(failure.panicked);
                        status.last_error = Some((failure.what, Instant::now()));
                        status.restarts
                    };
                    tokio::time::sleep(jittered(back_off, &(&instance, &name, restarts))).await;
                    watched.lock().backing_off = false;
                    back_off = (back_off * 2).min(LONGEST_BACK_OFF);
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = run => {}
            }
        });
    }

    /// Of each supervised task, in the order in which they were begun.
    pub fn status(&self) -> Vec<TaskStatus> {
        self.watched.lock().iter().map(|status| status.lock().clone()).collect()
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

struct Failure {
    what: String,
    panicked: bool,
}

/// The step's error, or what it panicked with, in words.
async fn caught<E: Display>(step: impl Future<Output = Result<(), E>>) -> Result<(), Failure> {
    match AssertUnwindSafe(step).catch_unwind().await {
        Ok(outcome) => outcome.map_err(|e| Failure { what: e.to_string(), panicked: false }),
        Err(panic) => Err(Failure { what: panicked(&*panic), panicked: true }),
    }
}

/// What to say of a panic.
pub fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("a fault of the server's: {}", panic_text(panic))
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("unknown")
}

/// Between half of it and all of it: what failed together does not come back together. Drawn from what it is for and not from
/// chance, so that a simulation can be replayed.
fn jittered(back_off: Duration, of: &impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    back_off / 2 + (back_off / 2).mul_f64((hasher.finish() % 1024) as f64 / 1024.0)
}

/// Runs a future to its end even if the caller goes away: for steps that may not be broken off in the middle.
pub async fn uncancelled<T: Send + 'static>(step: impl Future<Output = T> + Send + 'static) -> Option<T> {
    tokio::spawn(step).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A task that fails, panics and then works; its errors as they were told.
    #[tokio::test(start_paused = true)]
    async fn a_step_that_fails_or_panics_is_begun_again() {
        let (tasks, turn, told) = (Tasks::of("a"), Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (turns, tell) = (turn.clone(), told.clone());
        let step = move || {
            let turn = turns.fetch_add(1, Ordering::SeqCst);
            async move {
                match turn {
                    0 => Err("away".to_owned()),
                    1 => panic!("broken at {turn}"),
                    _ => std::future::pending().await,
                }
            }
        };
        tasks.supervise("test", step, move |e| tell.lock().push(e.to_owned()));
        let seen = async |restarts, backing_off| loop {
            let status = tasks.status().remove(0);
            if (status.restarts, status.backing_off) == (restarts, backing_off) {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let status = seen(1, true).await;
        assert_eq!((status.panics, status.last_error.unwrap().0.as_str()), (0, "away"));
        seen(2, true).await;
        let status = seen(2, false).await;
        assert_eq!((status.name.as_str(), status.panics, told.lock().len()), ("test", 1, 2));
        assert!(status.last_error.unwrap().0.contains("broken at 1"));
        tokio::time::sleep(LONGEST_BACK_OFF * 3).await;
        assert_eq!(turn.load(Ordering::SeqCst), 3);
        tasks.shutdown().await;
    }

    #[test]
    fn back_offs_differ_between_instances_and_stay_within_bounds() {
        let of = |instance: &str| jittered(LONGEST_BACK_OFF, &(instance, "tailing", 1));
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
        for instance in ["a", "b", "c", "d"] {
            assert!((LONGEST_BACK_OFF / 2..=LONGEST_BACK_OFF).contains(&of(instance)));
        }
    }
}
