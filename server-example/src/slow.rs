//! Bodies that come too slowly are given up: a client that stops, or sends byte after byte, holds
//! nothing up for long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

/// Bytes in a second with which a body must come, once it takes longer than it may pause.
const SLOWEST: f64 = 8192.0;

/// Whether a body was given up.
#[derive(Clone, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Coming {
    body: BodyDataStream,
    patience: Duration,
    start: Option<Instant>,
    bytes: usize,
    given_up: GivenUp,
}

/// The request, with a body that fails when it pauses for longer than `patience`, or takes longer than
/// this and a second for each [`SLOWEST`] bytes that came.
pub(crate) fn bounded(request: Request, patience: Duration) -> (Request, GivenUp) {
    let given_up = GivenUp::default();
    if request.body().is_end_stream() {
        return (request, given_up);
    }
    let request = request.map(|body| {
        let (body, given_up) = (body.into_data_stream(), given_up.clone());
        let coming = Coming { body, patience, start: None, bytes: 0, given_up };
        Body::from_stream(stream::unfold(Some(coming), |coming| async { coming?.next().await }))
    });
    (request, given_up)
}

impl Coming {
    /// The next bytes, and what comes after them; nothing after an error.
    async fn next(mut self) -> Option<(Result<Bytes, axum::Error>, Option<Self>)> {
        let now = Instant::now();
        let start = *self.start.get_or_insert(now);
        let earned = Duration::from_secs_f64(self.bytes as f64 / SLOWEST);
        let until = (now + self.patience).min(start + self.patience + earned);
        match timeout_at(until, self.body.next()).await {
            Ok(Some(Ok(bytes))) => {
                self.bytes += bytes.len();
                Some((Ok(bytes), Some(self)))
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => {
                self.given_up.0.store(true, Ordering::SeqCst);
                Some((Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))), None))
            }
        }
    }
}
