//! What is answered while the server waits for the parts that it stands on: that it lives, what it waits for, and 503 to all
//! else, in the form of the protocol that is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use parking_lot::Mutex;

use super::problem::Problem;
use super::{health, wfs};

/// Where requests go: nowhere yet until the server runs.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    awaited: Awaited,
    running: Arc<OnceLock<Router>>,
}

/// What is waited for, and why it is not there.
pub type Awaited = Arc<Mutex<BTreeMap<&'static str, String>>>;

impl Routes {
    /// While they wait, they answer so.
    pub fn starting(&self) -> Router {
        Router::new()
            .route("/health/live", get(health::live))
            .route("/health/ready", get(ready))
            .route("/wfs", any(wfs))
            .route("/wfs/{type}", any(wfs))
            .fallback(anything_else)
            .with_state(self.awaited.clone())
    }

    pub fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    /// From now on requests go there; those on connections that are open too.
    pub fn run(&self, router: Router) {
        // Set once: a server runs once.
        let _ = self.running.set(router);
    }

    pub fn running(&self) -> Option<&Router> {
        self.running.get()
    }
}

fn told(awaited: &Awaited) -> String {
    let awaited = awaited.lock();
    if awaited.is_empty() {
        return "the server is starting".to_owned();
    }
    let each: Vec<String> = awaited.iter().map(|(what, why)| format!("{what}: {why}")).collect();
    format!("the server is starting and waits for {}", each.join("; "))
}

async fn ready(State(awaited): State<Awaited>) -> Response {
    let text = format!("not ready\n{}\n", told(&awaited));
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, HeaderValue::from_static("1"))], text).into_response()
}

async fn wfs(State(awaited): State<Awaited>, request: Request) -> Response {
    wfs::problem(Problem::unavailable(told(&awaited)), request.uri().query().unwrap_or_default())
}

async fn anything_else(State(awaited): State<Awaited>) -> Problem {
    Problem::unavailable(told(&awaited))
}
