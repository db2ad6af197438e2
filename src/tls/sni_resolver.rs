//! Selection of a listener's certificate by SNI.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::CertificateChain;

/// Certificates that are issued while the gateway runs, by domain.
#[derive(Default)]
pub struct IssuedCertificates(ArcSwap<IssuedByDomain>);

#[derive(Default)]
struct IssuedByDomain {
    /// That of the first domain which has one.
    default: Option<Arc<CertifiedKey>>,
    by_domain: HashMap<String, Arc<CertifiedKey>>,
}

impl IssuedCertificates {
    /// Replaces all certificates, from the next handshake on.
    pub fn replace<'a>(
        &self,
        certificates: impl IntoIterator<Item = (&'a str, &'a CertificateChain)>,
    ) {
        let mut next = IssuedByDomain::default();
        for (domain, chain) in certificates {
            next.default
                .get_or_insert_with(|| Arc::clone(&chain.certified));
            let certified = Arc::clone(&chain.certified);
            next.by_domain.insert(domain.to_owned(), certified);
        }
        self.0.store(Arc::new(next));
    }
}

impl fmt::Debug for IssuedCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.load().by_domain.keys())
            .finish()
    }
}

/// Selects a certificate by name: exact before wildcard, those of files before issued ones, the first
/// certificate for other names.
pub(super) struct SniResolver {
    default: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    issued: Option<Arc<IssuedCertificates>>,
}

impl SniResolver {
    pub(super) fn new(
        chains: Vec<CertificateChain>,
        issued: Option<Arc<IssuedCertificates>>,
    ) -> SniResolver {
        let default = chains.first().map(|chain| Arc::clone(&chain.certified));
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for CertificateChain {
            certified, names, ..
        } in chains
        {
            for name in names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix.to_owned()),
                    None => (&mut exact, name),
                };
                // The first certificate in the file wins.
                map.entry(name).or_insert_with(|| Arc::clone(&certified));
            }
        }
        SniResolver {
            default,
            exact,
            wildcard,
            issued,
        }
    }

    /// The certificate for a name; `None`: there is none at all yet.
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let issued = self.issued.as_ref().map(|issued| issued.0.load());
        let matching = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let by_issue = || issued.as_ref()?.by_domain.get(&name);
            // A wildcard matches exactly one label (RFC 9525, section 6.3).
            let by_wildcard = || self.wildcard.get(name.split_once('.')?.1);
            let exact = self.exact.get(&name);
            exact.or_else(by_issue).or_else(by_wildcard).cloned()
        });
        let first_issued = || issued.as_ref()?.default.clone();
        matching
            .or_else(|| self.default.clone())
            .or_else(first_issued)
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(client_hello.server_name())
    }
}

impl fmt::Debug for SniResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.exact.keys().chain(self.wildcard.keys());
        f.debug_list().entries(names).finish()
    }
}
