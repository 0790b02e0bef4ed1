//! Refusals, all of one shape: RFC 9457's `application/problem+json`, with the faults of a configuration beside it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::Unchanged;
use crate::control::change::{Refused, Unsaved};
use crate::control::config;

/// The media type of every refusal.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was refused (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Problem {
    /// Which kind, as a word that does not change.
    #[serde(rename = "type")]
    #[schema(example = "urn:sealane:problem:configuration-refused")]
    kind: String,
    /// The kind for a person.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, and what to do instead.
    detail: String,
    /// Everything that is wrong with the configuration that the change would have made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Fault>,
}

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(in crate::control) struct Fault {
    /// The configuration's file.
    pub(in crate::control) file: String,
    /// The line, from 1, of the document as it would have been; 0 when it is about the whole.
    pub(in crate::control) line: usize,
    /// The key, with the tables that it is in.
    pub(in crate::control) key: String,
    /// What is wrong with it.
    pub(in crate::control) wrong: String,
    /// What to write instead.
    pub(in crate::control) remedy: String,
}

impl From<&config::Fault> for Fault {
    fn from(fault: &config::Fault) -> Self {
        Self {
            file: fault.file.display().to_string(),
            line: fault.line,
            key: fault.key.clone(),
            wrong: fault.wrong.clone(),
            remedy: fault.remedy.clone(),
        }
    }
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:sealane:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            faults: Vec::new(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(in crate::control) fn detail(&self) -> &str {
        &self.detail
    }

    pub(in crate::control) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The request itself is wrong: its parameters, its headers or the form of its body.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request is malformed", detail)
    }

    /// Who asks has not shown the token.
    pub(super) fn stranger() -> Self {
        let detail = "send the token that the engine's token_file has, as Authorization: Bearer TOKEN";
        Self::new(StatusCode::UNAUTHORIZED, "stranger", "The engine does not know who asks", detail)
    }

    /// A page of another site has made a browser send this.
    pub(super) fn other_site() -> Self {
        let detail = "a page of another site may change nothing here; send the request from this engine's own page, or from a program";
        Self::new(StatusCode::FORBIDDEN, "other-site", "The request comes from another site", detail)
    }

    /// RFC 9110 15.5.20: whoever has this name, it is not an engine on a loopback address.
    pub(super) fn other_name() -> Self {
        let detail = "ask for a loopback address by its number, or as localhost";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "other-name", "Nobody has this name here", detail)
    }

    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    pub(super) fn no_such_method() -> Self {
        let detail = "see /openapi.json for what can be done here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This cannot be done here", detail)
    }

    pub(super) fn other_media_type(wanted: &str) -> Self {
        let detail = format!("send the body as {wanted}, with this Content-Type");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body has another media type", detail)
    }

    pub(super) fn too_long(most: usize) -> Self {
        let detail = format!("the body has more than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "The body is too long", detail)
    }

    /// RFC 9110 13.1.1: somebody else was faster.
    pub(super) fn overtaken(revision: impl std::fmt::Display) -> Self {
        let detail = format!("the configuration is at revision {revision} now: read it again, and change that");
        Self::new(StatusCode::PRECONDITION_FAILED, "overtaken", "The configuration has changed meanwhile", detail)
    }

    /// What is asked cannot be done as things are.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "This cannot be done as things are", detail)
    }

    /// The change does not fit the document.
    pub(super) fn unfit(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unfit", "The configuration has no such form", detail)
    }

    pub(super) fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "The engine could not do it", detail)
    }

    /// The request took longer than any may.
    pub(super) fn late() -> Self {
        let detail = "the request took too long; what it asked may have been done: read the state before you repeat it";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "late", "The request took too long", detail)
    }

    /// The engine ends.
    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The engine is stopping", "it answers no more requests")
    }
}

impl From<Unchanged> for Problem {
    fn from(unchanged: Unchanged) -> Self {
        let detail = unchanged.to_string();
        match unchanged {
            Unchanged::Missing(_) => Self::missing(detail),
            Unchanged::OtherName(..)
            | Unchanged::Null(_)
            | Unchanged::Number(_)
            | Unchanged::Deep(_)
            | Unchanged::Form(_) => Self::unfit(detail),
            Unchanged::Syntax(_) => Self::failed(detail),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let title = "The configuration is refused, and nothing has changed";
        let refuse = |faults| Self {
            faults,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration-refused", title, refused.to_string())
        };
        match &refused {
            Refused::Configuration(errors) => refuse(errors.faults().iter().map(Fault::from).collect()),
            Refused::Start(_) | Refused::Long => refuse(Vec::new()),
        }
    }
}

impl From<Unsaved> for Problem {
    fn from(unsaved: Unsaved) -> Self {
        match &unsaved {
            Unsaved::Changed(_) => Self::conflict(unsaved.to_string()),
            Unsaved::File(..) => Self::failed(unsaved.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), axum::Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

/// What any request may be refused with.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is read by the derive alone")]
pub(super) enum Always {
    /// The request is malformed
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// The engine does not know who asks
    #[response(status = 401, content_type = "application/problem+json")]
    Unknown(Problem),
    /// A page of another site has made a browser send it
    #[response(status = 403, content_type = "application/problem+json")]
    OtherSite(Problem),
    /// It asks for a loopback address by a name that is not localhost
    #[response(status = 421, content_type = "application/problem+json")]
    OtherName(Problem),
    /// The engine failed
    #[response(status = 500, content_type = "application/problem+json")]
    Failed(Problem),
    /// The engine is stopping, or the request took too long
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// What a request about something that has a name may be refused with.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is read by the derive alone")]
pub(super) enum Absent {
    /// There is no such thing
    #[response(status = 404, content_type = "application/problem+json")]
    Missing(Problem),
}

/// What a change may be refused with.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is read by the derive alone")]
pub(super) enum Unmade {
    /// It cannot be done as things are
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// The configuration is another one than `If-Match` says
    #[response(status = 412, content_type = "application/problem+json")]
    Overtaken(Problem),
    /// The body is too long
    #[response(status = 413, content_type = "application/problem+json")]
    Long(Problem),
    /// The body has another media type
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(Problem),
    /// The configuration would not hold: each fault with line, key and remedy. Nothing has changed
    #[response(status = 422, content_type = "application/problem+json")]
    Refused(Problem),
}
