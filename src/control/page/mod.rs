//! The status page: one HTML document that asks for nothing but itself and `/v1/overview`, and shows what that says.
//!
//! Its style and script stand in it and are allowed by their hashes (CSP level 3), so that nothing else runs in it, whatever names a configuration holds; they are put
//! on the page as text only.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

const DOCUMENT: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What whoever has the page can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Look.
    Read,
    /// Look and change with the API's token, neither without.
    Token,
    /// Look and change: who has got so far has shown a certificate.
    Open,
}

impl Access {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Token => "token",
            Self::Open => "open",
        }
    }
}

/// The page at `/`.
pub(super) fn routes(access: Access) -> Router {
    let page: Arc<str> = page(access).into();
    let headers = headers();
    Router::new().route("/", get(move || std::future::ready((headers.clone(), page.to_string()).into_response())))
}

fn page(access: Access) -> String {
    DOCUMENT.replace("{access}", access.word()).replace("{style}", STYLE).replace("{script}", SCRIPT)
}

/// `'sha256-…'`, the source that allows exactly this text.
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text.as_bytes())))
}

fn headers() -> [(HeaderName, HeaderValue); 7] {
    // The icon is a data URL; the script makes no HTML of strings, and the browser sees to it.
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        source(SCRIPT),
        source(STYLE)
    );
    // Base64 has no bytes that a header must not have.
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    let fixed = HeaderValue::from_static;
    [
        (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy),
        // For browsers that do not know frame-ancestors.
        (header::X_FRAME_OPTIONS, fixed("DENY")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
        // A newer engine has a newer page.
        (header::CACHE_CONTROL, fixed("no-store")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_policy_allows_is_what_stands_in_the_page() {
        let page = page(Access::Token);
        let between = |from: &str, to: &str| {
            let (_, rest) = page.split_once(from).expect(from);
            assert!(!rest.contains(from), "{from} comes once");
            rest.split_once(to).expect(to).0.to_owned()
        };
        let [_, (_, policy), ..] = headers();
        let policy = policy.to_str().unwrap();
        assert!(policy.contains(&format!("script-src {};", source(&between("<script>", "</script>")))));
        assert!(policy.contains(&format!("style-src {};", source(&between("<style>", "</style>")))));
        assert!(!policy.contains("unsafe"));
        // From FIPS 180-4's example of "abc".
        assert_eq!(source("abc"), "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='");
    }

    #[test]
    fn the_page_names_nothing_outside_and_makes_no_html_of_strings() {
        for access in [Access::Read, Access::Token, Access::Open] {
            let page = page(access);
            assert!(page.contains(&format!("data-access=\"{}\"", access.word())));
            assert!(["{access}", "{style}", "{script}"].iter().all(|mark| !page.contains(mark)));
            let outside = page.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "http://",
                "https://",
                "src=",
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                "@import",
                "url(",
            ] {
                assert!(!outside.contains(word), "{word}");
            }
        }
    }
}
