//! How many requests are answered at once, and how long a read may take.
//!
//! Who finds all places of its kind taken waits for one, if few wait already, and is else told at once to come again. A read
//! that takes too long ends wherever it is: before its answer has begun with an error, after that by breaking the answer off,
//! so that the client notices. What it held, the place and the reader's ticket, is let go then, whether the client reads or not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::Web;
use super::problem::{Problem, Result};
use super::wfs;
use crate::config;

/// How long a request waits for a place.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The places of both kinds.
pub struct Places {
    pub reads: Kind,
    pub writes: Kind,
}

impl Places {
    pub fn new(server: &config::Server) -> Places {
        Places {
            reads: Kind::new("server.max_reads", server.max_reads, server.max_waiting),
            writes: Kind::new("server.max_writes", server.max_writes, server.max_waiting),
        }
    }
}

/// The places of requests of one kind.
pub struct Kind {
    /// How the operator can have more of them.
    setting: &'static str,
    most: usize,
    places: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Kind {
    fn new(setting: &'static str, most: usize, most_waiting: usize) -> Kind {
        Kind { setting, most, places: Arc::new(Semaphore::new(most)), waiting: Semaphore::new(most_waiting) }
    }

    /// Requests that have a place.
    pub fn in_flight(&self) -> usize {
        self.most - self.places.available_permits()
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let free = || self.places.clone().try_acquire_owned();
        if let Ok(place) = free() {
            return Ok(place);
        }
        let wait = async {
            let _waiting = self.waiting.try_acquire().ok()?;
            timeout(LONGEST_WAIT, self.places.clone().acquire_owned()).await.ok()?.ok()
        };
        wait.await.ok_or_else(|| Problem::unavailable(format!("too many requests at once ({})", self.setting)))
    }
}

/// Middleware: gives requests that read or write features a place, and reads an end.
pub async fn admit(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_wfs = wfs::is_path(path);
    if !(is_wfs || path.starts_with("/collections")) || request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    admitted(&web, request, next).await.unwrap_or_else(|problem| match is_wfs {
        true => wfs::problem(problem, &query),
        false => problem.into_response(),
    })
}

async fn admitted(web: &Web, request: Request, next: Next) -> Result<Response> {
    let longest = web.server.longest_read;
    let end = Instant::now() + longest;
    // A POST to /wfs may be either; what matters is that no write is broken off.
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let place = if reads { web.places.reads.place().await? } else { web.places.writes.place().await? };
    let answer = next.run(request);
    let response = match reads {
        true => timeout_at(end, answer).await.map_err(|_| Problem::unavailable(TooLong(longest).to_string()))?,
        false => answer.await,
    };
    // What is all there already holds nothing.
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(Bounded::new(body, place, end, longest))))
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer took longer than {} seconds (server.longest_read)", .0.as_secs_f64())]
struct TooLong(Duration);

/// A streamed answer that ends in time.
struct Bounded {
    state: Arc<Mutex<Progress>>,
    longest: Duration,
    timer: AbortHandle,
}

enum Progress {
    Open { body: Body, _place: OwnedSemaphorePermit, reader: Option<Waker> },
    Ended,
    BrokenOff,
}

impl Bounded {
    fn new(body: Body, place: OwnedSemaphorePermit, end: Instant, longest: Duration) -> Bounded {
        let state = Arc::new(Mutex::new(Progress::Open { body, _place: place, reader: None }));
        let timed = state.clone();
        // Nobody asks for the body of a client that does not read: something else has to end it.
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            tracing::warn!(error = %TooLong(longest), "an answer was broken off");
            let broken = std::mem::replace(&mut *timed.lock(), Progress::BrokenOff);
            if let Progress::Open { reader: Some(reader), .. } = broken {
                reader.wake();
            }
        });
        Bounded { state, longest, timer: timer.abort_handle() }
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let mut state = self.state.lock();
        let frame = match &mut *state {
            Progress::Open { body, reader, .. } => {
                *reader = Some(context.waker().clone());
                Pin::new(body).poll_frame(context)
            }
            Progress::Ended => Poll::Ready(None),
            Progress::BrokenOff => Poll::Ready(Some(Err(axum::Error::new(TooLong(self.longest))))),
        };
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.timer.abort();
            *state = Progress::Ended;
        }
        frame
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
