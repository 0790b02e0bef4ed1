//! What the API asks of control: requests wait in a bounded queue, control's loop takes one at a time, and each answers its own asker.
//!
//! Control alone owns what it shows and changes. An asker that goes away, or never reads its answer, costs control nothing.

use tokio::sync::{mpsc, oneshot};

use super::problem::Problem;
use crate::base::{Instant, UnixTime};
use crate::control::Control;

/// Most requests that wait for control: as many as there are connections, each of which has one at most.
pub(super) const REQUESTS_MAX: usize = 64;

/// When a request is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: UnixTime,
}

/// Answers a request, with control in hand.
type Answering = dyn FnOnce(&mut Control, Moment) + Send;

/// Something that control is asked.
pub struct Request(Box<Answering>);

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

/// The askers' end of the queue.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<Request>);

/// Both ends of a queue.
pub fn queue() -> (Asker, mpsc::Receiver<Request>) {
    let (asker, requests) = mpsc::channel(REQUESTS_MAX);
    (Asker(asker), requests)
}

impl Asker {
    /// Control's answer.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Control, Moment) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let request = Request(Box::new(move |control, moment| {
            // Who has gone away needs no answer.
            let _ = answer.send(what(control, moment));
        }));
        self.0.send(request).await.map_err(|_| Problem::stopping())?;
        answered.await.map_err(|_| Problem::stopping())
    }
}

impl Control {
    /// Answers one request.
    pub fn on_request(&mut self, request: Request, now: Instant, wall: UnixTime) {
        (request.0)(self, Moment { now, wall });
    }
}
