//! One change: the document is edited, proven, put in force, and awaited on every lane.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::document::{Document, Put, Unchanged};
use super::extract::{Expected, tag};
use super::problem::{Fault, Problem};
use super::queue::Asker;
use super::state::Changed;
use crate::base::UnixTime;
use crate::control::Control;
use crate::control::change::Revision;
use crate::lane::Counters;

/// How long a change waits for lanes. One that breathes takes a configuration within milliseconds.
pub(super) const LANES_MAX: Duration = Duration::from_millis(900);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    asker: Asker,
    lanes: Arc<[Arc<Counters>]>,
    lanes_max: Duration,
}

impl Api {
    /// Over control, and lanes that count what they have in force.
    pub fn new(asker: Asker, lanes: impl IntoIterator<Item = Arc<Counters>>) -> Self {
        Self { asker, lanes: lanes.into_iter().collect(), lanes_max: LANES_MAX }
    }

    /// The same for lanes that never answer.
    #[cfg(test)]
    pub(super) fn impatient(self) -> Self {
        Self { lanes_max: Duration::ZERO, ..self }
    }

    /// The engine's control.
    pub(super) fn control(&self) -> &Asker {
        &self.asker
    }

    /// Shows something of control, under the revision that it is of.
    pub(super) async fn show<T: Serialize + Send + 'static>(
        &self,
        what: impl FnOnce(&Control) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        let look = move |control: &mut Control, _| what(control).map(|shown| (shown, control.revision()));
        let (shown, revision) = self.asker.ask(look).await??;
        Ok(tagged(Json(shown).into_response(), revision))
    }

    /// Makes a change of the document.
    pub(super) async fn change(
        &self,
        expected: Expected,
        edit: impl FnOnce(&mut Document) -> Result<Put, Unchanged> + Send + 'static,
    ) -> Result<Response, Problem> {
        self.make(expected, move |control, wall| {
            let mut document = control.document()?;
            let put = edit(&mut document)?;
            control.change(&document.to_string(), wall)?;
            Ok((put, false))
        })
        .await
    }

    /// Makes any change of the configuration. It says whether something is there that was not, and whether changes were discarded that had not been saved.
    pub(super) async fn make(
        &self,
        expected: Expected,
        make: impl FnOnce(&mut Control, UnixTime) -> Result<(Put, bool), Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        let made = self.asker.ask(move |control, moment| {
            expected.prove(control.revision())?;
            let (put, discards) = make(control, moment.wall)?;
            let changed = Changed {
                configuration: control.shown_version(),
                in_force: false,
                discarded_unsaved_changes: discards,
                warnings: control.configuration.warnings.iter().map(Fault::from).collect(),
            };
            Ok::<_, Problem>((put, changed, control.revision()))
        });
        let (put, mut changed, revision) = made.await??;
        changed.in_force = self.in_force(revision.version).await;
        let status = match (changed.in_force, put) {
            (false, _) => StatusCode::ACCEPTED,
            (true, Put::Created) => StatusCode::CREATED,
            (true, Put::Replaced) => StatusCode::OK,
        };
        Ok(tagged((status, Json(changed)).into_response(), revision))
    }

    async fn in_force(&self, version: u64) -> bool {
        self.on_lanes(|lane| lane.lane.configuration_version.value() >= version).await
    }

    /// Waits until every lane has something, or for as long as a change waits. Gives whether they have.
    pub(super) async fn on_lanes(&self, has: impl Fn(&Counters) -> bool) -> bool {
        let have = || self.lanes.iter().all(|lane| has(lane));
        let wait = async {
            let mut looks = tokio::time::interval(LOOK);
            while !have() {
                looks.tick().await;
            }
        };
        tokio::time::timeout(self.lanes_max, wait).await.is_ok()
    }
}

fn tagged(mut response: Response, revision: Revision) -> Response {
    if let Ok(value) = HeaderValue::from_str(&tag(revision)) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}
