//! What handlers take from a request, with refusals in the API's own shape.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::document::Body;
use super::problem::Problem;
use crate::control::change::Revision;
use crate::control::config::FILE_MAX;

/// The longest JSON body, in bytes: some thousand servers.
const JSON_MAX: usize = 1 << 20;

/// What the path names.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(named)| Self(named)).map_err(|rejection| Problem::malformed(rejection.body_text()))
    }
}

/// What stands behind the path's `?`.
#[derive(Clone, Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|rejection| Problem::malformed(rejection.body_text()))
    }
}

/// The revisions of which the change is meant to be one (`If-Match`, RFC 9110 13.1.1); without the header, whichever is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected(Option<Vec<String>>);

impl Expected {
    /// Refuses the change if it is of another revision.
    pub(super) fn prove(&self, revision: Revision) -> Result<(), Problem> {
        let tag = tag(revision);
        match &self.0 {
            Some(tags) if !tags.iter().any(|other| *other == tag || other == "*") => Err(Problem::overtaken(revision)),
            Some(_) | None => Ok(()),
        }
    }
}

/// A revision as an entity tag.
pub(super) fn tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

impl<S: Send + Sync> FromRequestParts<S> for Expected {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let value =
                value.to_str().map_err(|_| Problem::malformed("If-Match has other characters than tags have"))?;
            tags.extend(value.split(',').map(|tag| tag.trim().to_owned()));
        }
        Ok(Self(parts.headers.contains_key(header::IF_MATCH).then_some(tags)))
    }
}

/// The header that says of which revision a change is.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is read by the derive alone")]
pub(super) struct IfMatch {
    /// The `ETag` of what was read. If the configuration has changed since, the change is refused with 412
    #[param(rename = "If-Match", example = json!("\"7-0123456789abcdef\""))]
    if_match: Option<String>,
}

/// A table of the configuration in JSON, with the keys that the file has: `dpdk-config/tap.toml` explains them all.
#[derive(Debug, utoipa::ToSchema)]
#[schema(value_type = Object, example = json!({ "address": "198.18.0.1:8001", "ratio": 5, "state": "enabled" }))]
#[expect(dead_code, reason = "it is read by the derive alone")]
pub(super) struct Table(Body);

/// A body that is one JSON object.
#[derive(Clone, Debug)]
pub(super) struct Object(pub(super) Body);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        prove_media_type(request.headers(), &["application/json", "application/merge-patch+json"])?;
        let bytes = whole(request, JSON_MAX).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| Problem::malformed(format!("the body: {error}")))
    }
}

/// A body that is a configuration.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        prove_media_type(request.headers(), &["application/toml", "text/plain"])?;
        let bytes = whole(request, FILE_MAX).await?;
        let text = String::from_utf8(bytes.into()).map_err(|_| Problem::malformed("the body is not UTF-8 text"))?;
        Ok(Self(text))
    }
}

async fn whole(request: Request, most: usize) -> Result<Bytes, Problem> {
    axum::body::to_bytes(request.into_body(), most).await.map_err(|error| {
        let is_long =
            std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if is_long { Problem::too_long(most) } else { Problem::malformed(format!("the body ended early: {error}")) }
    })
}

/// A body of another kind is refused, so that no web page that a person visits can send one: a form has no such types, and makes no PUT.
fn prove_media_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if allowed.iter().any(|allowed| essence.eq_ignore_ascii_case(allowed)) {
        return Ok(());
    }
    Err(Problem::other_media_type(allowed.first().copied().unwrap_or_default()))
}
