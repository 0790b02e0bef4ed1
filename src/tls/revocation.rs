//! What certificate revocation lists say (RFC 5280 5), for the question that a ticket asks: would this client's certificates still be taken?
//!
//! A full handshake asks webpki, which also verifies the lists' signatures. A resumption asks here, at the price of a look into a table. The answer is never
//! milder than webpki's: all lists of an issuer count together, and the list that ends first ends them.

use std::collections::{HashMap, HashSet};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::base::UnixTime;
use crate::ticket::credential::{self, CertificateId};

/// Revocation lists of one file.
#[derive(Debug)]
pub struct RevocationLists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    next_update: UnixTime,
    issuers: Vec<Vec<u8>>,
}

impl RevocationLists {
    /// Reads PEM lists.
    ///
    /// # Errors
    /// [`Invalid`] says what is wrong, so that the configuration check can name the file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Invalid> {
        let lists = CertificateRevocationListDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Invalid::List(error.to_string()))?;
        let mut next_update = UnixTime(u64::MAX);
        let mut issuers = Vec::new();
        for list in &lists {
            let list = parse(list)?;
            next_update = next_update.min(next_update_of(&list)?);
            issuers.push(list.issuer().as_raw().to_vec());
        }
        if lists.is_empty() {
            return Err(Invalid::NoList);
        }
        Ok(Self { lists, next_update, issuers })
    }

    /// When the first of them ends: from then on nobody is taken whose issuer it is of.
    pub fn next_update(&self) -> UnixTime {
        self.next_update
    }

    /// The names of those who issued them, as DER has them.
    pub(super) fn issuers(&self) -> &[Vec<u8>] {
        &self.issuers
    }
}

fn parse<'a>(der: &'a CertificateRevocationListDer<'_>) -> Result<CertificateRevocationList<'a>, Invalid> {
    match CertificateRevocationList::from_der(der) {
        Ok(([], list)) => Ok(list),
        Ok(_) => Err(Invalid::List("there are bytes behind its end".to_owned())),
        Err(error) => Err(Invalid::List(error.to_string())),
    }
}

fn next_update_of(list: &CertificateRevocationList<'_>) -> Result<UnixTime, Invalid> {
    let time = list.next_update().ok_or_else(|| Invalid::List("it does not say when the next one comes".to_owned()))?;
    // A list that ended before 1970 has ended all the same.
    Ok(UnixTime(u64::try_from(time.timestamp()).unwrap_or(0)))
}

/// What is wrong with a file of revocation lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is none in it.
    #[error("holds no PEM revocation list")]
    NoList,
    /// One of them does not parse, or has what is not supported.
    #[error("holds a revocation list that cannot be used: {0}")]
    List(String),
}

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Its issuer's list does not have it.
    Good,
    /// Its issuer's list has it.
    Revoked,
    /// There is no list of its issuer, or one that has ended.
    Unknown,
}

/// Who has been revoked, by all lists of a service.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Until when each issuer's lists hold.
    issuers: HashMap<[u8; 16], UnixTime>,
    serials: HashSet<[u8; 16]>,
}

impl Revoked {
    pub(super) fn new<'a>(lists: impl Iterator<Item = &'a RevocationLists>) -> Result<Self, Invalid> {
        let mut revoked = Self::default();
        for list in lists.flat_map(|file| &file.lists) {
            let list = parse(list)?;
            let issuer = list.issuer().as_raw();
            let next_update = next_update_of(&list)?;
            let until = revoked.issuers.entry(credential::issuer_id(issuer)).or_insert(next_update);
            *until = (*until).min(next_update);
            let entries = list.iter_revoked_certificates();
            revoked.serials.extend(entries.map(|entry| CertificateId::new(issuer, entry.raw_serial()).serial));
        }
        Ok(revoked)
    }

    pub(super) fn status(&self, certificate: &CertificateId, now: UnixTime) -> Status {
        if self.serials.contains(&certificate.serial) {
            return Status::Revoked;
        }
        // webpki, too, takes a list to have ended at the time that it names.
        match self.issuers.get(&certificate.issuer) {
            Some(until) if now < *until => Status::Good,
            Some(_) | None => Status::Unknown,
        }
    }
}
