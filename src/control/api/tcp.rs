//! The API over TCP, for nobody who shows neither the token nor a certificate of the CA that the configuration names.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::problem::Problem;
use crate::control::config::ApiTcp;
use crate::control::keys::file;

/// The shortest token, in bytes: as many as 16 bytes take in hexadecimal.
const TOKEN_MIN: usize = 32;

/// Who may ask over TCP, proven to be possible.
#[derive(Clone, Debug)]
pub struct Access {
    token: Option<Token>,
    tls: Option<Arc<ServerConfig>>,
}

/// A bearer token (RFC 6750).
#[derive(Clone)]
struct Token(Arc<Zeroizing<Vec<u8>>>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What is wrong with one of the files that access is by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("engine.api.{key}: {what}; {remedy}")]
pub struct Inaccessible {
    /// The key below `engine.api`.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do instead.
    pub remedy: String,
}

/// A listener that nobody passes without access.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: TcpListener,
    pub(super) access: Access,
}

/// Why the API is not served over TCP.
#[derive(Debug, thiserror::Error)]
pub enum Unbound {
    /// The files.
    #[error(transparent)]
    Inaccessible(#[from] Inaccessible),
    /// The address.
    #[error("engine.api.listen: cannot listen on {0} ({1}); stop who listens there, or write another address")]
    Address(SocketAddr, io::Error),
}

/// Takes the address, so that a clash is known before anything starts.
///
/// # Errors
/// [`Unbound`] says why not.
pub fn bind(settings: &ApiTcp) -> Result<Bound, Unbound> {
    let access = Access::load(settings)?;
    let listen = || {
        let listener = TcpListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listener = listen().map_err(|error| Unbound::Address(settings.listen, error))?;
    Ok(Bound { listener, access })
}

impl Bound {
    /// Where.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Inaccessible`] says what is wrong with which.
    pub fn load(settings: &ApiTcp) -> Result<Self, Inaccessible> {
        let token = settings.token_file.as_deref().map(token).transpose()?;
        let tls = settings.tls.as_ref().map(tls).transpose()?.map(Arc::new);
        Ok(Self { token, tls })
    }

    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }

    pub(super) fn asks_for_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request may pass: it shows the token, if there is one. Who has come so far has shown a certificate, if one is asked for.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(Token(token)) = &self.token else { return true };
        let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let shown = shown.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        // How long it takes says nothing of how much of it is right.
        shown.is_some_and(|(_, shown)| bool::from(shown.ct_eq(token.as_slice())))
    }
}

/// Lets nobody pass without the token.
pub(super) async fn admit(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.admits(request.headers()) {
        return next.run(request).await;
    }
    let mut refusal = Problem::stranger().into_response();
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refusal
}

/// The token in a file that nobody else may read.
pub fn token_in(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = file::read_bytes(path).map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(bytes.trim_ascii().to_vec()))
}

fn token(path: &Path) -> Result<Token, Inaccessible> {
    let remedy = "make one with: (umask 077; openssl rand -hex 32 > FILE)";
    let wrong = |what| Inaccessible { key: "token_file", what, remedy: remedy.to_owned() };
    let token = token_in(path).map_err(wrong)?;
    if token.len() < TOKEN_MIN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(wrong(format!("is {}, which has no token of {TOKEN_MIN} printable bytes or more", path.display())));
    }
    Ok(Token(Arc::new(token)))
}

fn tls(settings: &crate::control::config::ApiTls) -> Result<ServerConfig, Inaccessible> {
    let wrong = |key: &'static str, path: &Path, error: &dyn std::fmt::Display| Inaccessible {
        key,
        what: format!("is {}, which cannot be used ({error})", path.display()),
        remedy: "write a PEM file".to_owned(),
    };
    let certificates = |key: &'static str, path: &Path| {
        let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        all.map_err(|error| wrong(key, path, &error))
    };
    let chain = certificates("certificate", &settings.certificate)?;
    let key_bytes = file::read_bytes(&settings.private_key).map_err(|error| Inaccessible {
        key: "key",
        what: error.to_string(),
        remedy: "chmod 600 it".to_owned(),
    })?;
    let key = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|error| wrong("key", &settings.private_key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("certificate", &settings.certificate, &error))?;
    let server = match &settings.client_ca {
        None => server.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("client_ca", path)? {
                roots.add(authority).map_err(|error| wrong("client_ca", path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            server.with_client_cert_verifier(verifier.map_err(|error| wrong("client_ca", path, &error))?)
        }
    };
    server.with_single_cert(chain, key).map_err(|error| wrong("certificate", &settings.certificate, &error))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn loaded(token: &str, mode: u32) -> Result<Access, Inaccessible> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Access::load(&ApiTcp { listen: ([127, 0, 0, 1], 0).into(), token_file: Some(path), tls: None })
    }

    #[test]
    fn only_who_shows_the_whole_token_is_admitted() {
        let token = "0123456789abcdef0123456789abcdef";
        let access = loaded(&format!("{token}\n"), 0o600).unwrap();
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            access.admits(&headers)
        };
        assert!(admits(&format!("Bearer {token}")) && admits(&format!("bearer {token}")));
        assert!(!access.admits(&HeaderMap::new()));
        let near = [format!("Bearer {token}0"), format!("Bearer {}", &token[1..])];
        for wrong in ["", "Bearer ", "Bearer", token, "Basic MTIz"].into_iter().chain(near.iter().map(String::as_str)) {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!format!("{access:?}").contains(token));
    }

    #[test]
    fn a_token_that_is_short_or_others_to_read_is_none() {
        let token = "0123456789abcdef0123456789abcdef";
        let told = |token: &str, mode| loaded(token, mode).unwrap_err().to_string();
        assert!(told(token, 0o644).contains("mode 0644"));
        for short in ["", "\n", &token[1..], "0123456789abcdef 0123456789abcdef"] {
            assert!(told(short, 0o600).contains("no token of 32 printable bytes"), "{short:?}");
        }
    }
}
