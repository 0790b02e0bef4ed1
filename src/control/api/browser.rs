//! What a page that an operator visits cannot make his browser do here: send what he never asked for, with the certificate that the browser shows by itself (cross-site
//! request forgery), or read a loopback address as if it were the page's own (DNS rebinding).
//!
//! Programs send none of the headers that this goes by, and are not held up. Scripts that read what others serve are the browser's to stop: no answer here allows any (CORS).

use axum::extract::Request;
use axum::http::header::{self, HeaderName};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// From which site a browser sends a request (Fetch Metadata Request Headers, W3C). No script can set it.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Who may load an answer into his page (the Fetch standard).
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Refuses what would change something and was not sent from this very place.
pub(super) async fn from_here(request: Request, next: Next) -> Response {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if is_safe || is_from_here(request.headers()) {
        return next.run(request).await;
    }
    Problem::other_site().into_response()
}

fn is_from_here(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SITE) {
        // `none`: the user himself, by the address bar.
        return site == "same-origin" || site == "none";
    }
    // Browsers that have no such header say where a page is from whenever it is no GET (RFC 6454 7).
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Refuses whoever asks for a loopback address by a name: that name's owner has it lead here.
pub(in crate::control) async fn under_known_name(request: Request, next: Next) -> Response {
    // HTTP/1.1 names the host in the header, or in the request line if that is whole (RFC 9112 3.2).
    let whole = request.uri().authority().map(Authority::host);
    let header = request.headers().get(header::HOST).map(host_of);
    if whole.is_none_or(is_known) && header.is_none_or(|host| host.as_deref().is_some_and(is_known)) {
        return next.run(request).await;
    }
    Problem::other_name().into_response()
}

/// The host of a `Host` header, without its port.
fn host_of(value: &HeaderValue) -> Option<String> {
    Some(value.to_str().ok()?.parse::<Authority>().ok()?.host().to_owned())
}

/// Whether no DNS server has a say in what the host is: an address, or what RFC 6761 6.3 keeps for loopback.
fn is_known(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.to_ascii_lowercase();
    bare.parse::<std::net::IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

/// Has no answer kept, guessed at, or loaded into another site's page.
pub(super) async fn kept_to_itself(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    /// What a request with these headers is answered with, and whether it has changed anything.
    fn asked(router: Router, request: axum::http::request::Builder) -> StatusCode {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(router.oneshot(request.body(Body::empty()).unwrap())).unwrap().status()
    }

    fn route() -> Router {
        let done = || std::future::ready("done");
        Router::new().route("/", post(done).get(done).patch(done))
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let sent = |method: Method, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri("/").header("host", "127.0.0.1:9901");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            asked(route().layer(from_fn(from_here)), request)
        };
        for refused in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:9901")],
            &[("sec-fetch-site", "")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "http://127.0.0.1:9902")],
            &[("origin", "http://127.0.0.1:9901.evil.example")],
        ] {
            assert_eq!(sent(Method::POST, refused), StatusCode::FORBIDDEN, "{refused:?}");
            assert_eq!(sent(Method::PATCH, refused), StatusCode::FORBIDDEN, "{refused:?}");
            assert_eq!(sent(Method::GET, refused), StatusCode::OK, "{refused:?}: it changes nothing");
        }
        for admitted in [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9901")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://127.0.0.1:9901")],
        ] {
            assert_eq!(sent(Method::POST, admitted), StatusCode::OK, "{admitted:?}");
        }
    }

    #[test]
    fn a_loopback_address_has_no_name_but_localhost() {
        let sent = |host: &str| {
            let request = Request::get("/").header("host", host);
            asked(route().layer(from_fn(under_known_name)), request)
        };
        for known in ["127.0.0.1:9900", "127.0.0.1", "[::1]:9900", "localhost", "LOCALHOST:9900", "a.localhost:1"] {
            assert_eq!(sent(known), StatusCode::OK, "{known}");
        }
        for rebound in [
            "evil.example:9900",
            "evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "",
            "127.0.0.1@evil.example:1 ",
        ] {
            assert_eq!(sent(rebound), StatusCode::MISDIRECTED_REQUEST, "{rebound}");
        }
        let programs = Request::get("/");
        assert_eq!(asked(route().layer(from_fn(under_known_name)), programs), StatusCode::OK);
        let whole = Request::get("http://evil.example/").header("host", "localhost");
        assert_eq!(asked(route().layer(from_fn(under_known_name)), whole), StatusCode::MISDIRECTED_REQUEST);
    }
}
