//! The certificates of the database as this gateway serves them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::failure::with_sources;
use super::wanted::{Wanted, wanted};
use crate::auth::sealing::KeyRing;
use crate::auth::session::Millis;
use crate::database::{AcmeCertificate, AcmeCertificateState, Database};
use crate::settings::Reloadable;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, CertificateChain};

/// Certificates that are opened and parsed.
pub(super) struct Certificates {
    database: Database,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<Wanted, KnownCertificate>>,
}

/// The latest certificate of a domain that was read.
struct KnownCertificate {
    version: u64,
    /// Absent if its key does not open; then the previous one, if any.
    chain: Option<CertificateChain>,
}

/// States of certificates as the database has them.
pub(super) struct States(HashMap<(String, String), AcmeCertificateState>);

impl States {
    pub(super) fn get(&self, wanted: &Wanted) -> Option<&AcmeCertificateState> {
        let name = (wanted.directory.clone(), wanted.domain.clone());
        self.0.get(&name)
    }
}

impl Certificates {
    pub(super) fn new(database: Database, metrics: Arc<Metrics>) -> Certificates {
        Certificates {
            database,
            metrics,
            known: Mutex::default(),
        }
    }

    /// Reads the states of the certificates; `None`: the database does not respond.
    pub(super) async fn states(&self) -> Option<States> {
        let states = self.database.acme_certificate_states().await;
        let states = states.map_err(|error| {
            let error = with_sources(&error);
            tracing::warn!(error, "the certificates by ACME cannot be read");
        });
        let named = states.ok()?.into_iter().map(|state| {
            let name = (state.directory.clone(), state.domain.clone());
            (name, state)
        });
        Some(States(named.collect()))
    }

    /// Reads what has changed in the database; `None`: it does not respond.
    pub(super) async fn refresh(&self, settings: &Reloadable) -> Option<States> {
        let keys = settings.encryption.as_ref()?;
        let states = self.states().await?;
        for wanted in wanted(settings) {
            let version = states.get(&wanted).map_or(0, |state| state.version);
            let known = self.known.lock().get(&wanted).map(|known| known.version);
            if version > 0 && known != Some(version) {
                self.read(wanted, keys).await;
            }
        }
        Some(states)
    }

    async fn read(&self, wanted: Wanted, keys: &KeyRing) {
        let (directory, domain) = (&wanted.directory, &wanted.domain);
        let (version, certificate) = match self.database.acme_certificate(directory, domain).await {
            Ok(Some(read)) => read,
            Ok(None) => return,
            Err(error) => {
                let error = with_sources(&error);
                tracing::warn!(domain, error, "a certificate by ACME cannot be read");
                return;
            }
        };
        let chain = self.open(&wanted, &certificate, keys).await;
        if chain.is_none() {
            tracing::error!(
                domain,
                "the key of a certificate by ACME does not open with the keys in encryption; it is \
                 replaced when it is due for renewal"
            );
        }
        let mut known = self.known.lock();
        let previous = known.remove(&wanted).and_then(|known| known.chain);
        let chain = chain.or(previous);
        known.insert(wanted, KnownCertificate { version, chain });
    }

    async fn open(
        &self,
        wanted: &Wanted,
        certificate: &AcmeCertificate,
        keys: &KeyRing,
    ) -> Option<CertificateChain> {
        let associated = wanted.associated_data();
        let opened = keys.open(&associated, &certificate.sealed_key)?;
        if opened.is_outdated
            && let Some(sealed) = keys.seal(&associated, &opened.plain)
        {
            let (directory, domain) = (&wanted.directory, &wanted.domain);
            let old = &certificate.sealed_key;
            let resealed = self
                .database
                .reseal_acme_key(directory, domain, old, &sealed);
            if let Err(error) = resealed.await {
                let error = with_sources(&error);
                tracing::warn!(domain, error, "the key of a certificate is not sealed anew");
            }
        }
        tls::parse_chain(certificate.chain.as_bytes(), &opened.plain).ok()
    }

    /// Has the listeners of a configuration serve the certificates that are known.
    pub(super) fn serve(&self, settings: &Reloadable) {
        let known = self.known.lock();
        for acme in settings
            .served_listeners()
            .filter_map(|one| one.acme.as_ref())
        {
            let of_listener = Wanted::of(&acme.settings);
            let served: Vec<_> = of_listener
                .filter_map(|wanted| Some((known.get(&wanted)?.chain.as_ref()?, wanted)))
                .collect();
            for (chain, wanted) in &served {
                let series = &self.metrics.tls_certificate_not_after;
                let series = series.with_label_values(&[&*wanted.domain]);
                series.set(chain.not_after());
            }
            let by_domain = served
                .iter()
                .map(|(chain, wanted)| (&*wanted.domain, *chain));
            acme.issued.replace(by_domain);
        }
    }

    /// When the certificate that is served for a domain expires.
    pub(super) fn expiry(&self, wanted: &Wanted) -> Option<Millis> {
        let known = self.known.lock();
        let chain = known.get(wanted)?.chain.as_ref()?;
        Some(to_millis(chain.not_after()))
    }
}

/// Converts Unix seconds of a certificate to milliseconds.
pub(super) fn to_millis(seconds: i64) -> Millis {
    Millis::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}
