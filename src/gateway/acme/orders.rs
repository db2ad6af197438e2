//! Orders of what is due, by one gateway of the fleet at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::account;
use super::authority::Authority;
use super::certificates::{Certificates, States, to_millis};
use super::failure::{OrderFailure, with_sources};
use super::order::{self, IssuedCertificate};
use super::schedule::{self, DUE_AT_ISSUE_PAUSE};
use super::wanted::{Wanted, WantedFromAccount};
use crate::auth::sealing::KeyRing;
use crate::clock::millis;
use crate::database::{AcmeCertificate, AcmeLease, Database};
use crate::events::{Event, EventKind, Events};
use crate::settings::Reloadable;
use crate::store::Store;
use crate::telemetry::metrics::{AcmeOutcome, Metrics};

/// Time after which another gateway may order if this one has ended.
const LEASE: Duration = Duration::from_mins(1);
/// How long an order may take.
const ORDER_TIMEOUT: Duration = Duration::from_mins(5);

/// Orders certificates and records the outcomes.
pub(super) struct Orders {
    pub(super) database: Database,
    pub(super) store: Store,
    pub(super) events: Events,
    pub(super) metrics: Arc<Metrics>,
    pub(super) certificates: Arc<Certificates>,
    /// Notified of a certificate that was issued.
    pub(super) changed: Arc<Notify>,
}

/// With what an account orders.
struct OrderContext<'a> {
    group: &'a WantedFromAccount,
    keys: &'a KeyRing,
    authority: Authority,
}

impl Orders {
    /// Orders what is due with an account, unless another gateway is about to.
    pub(super) async fn order(&self, group: &WantedFromAccount, settings: &Reloadable) {
        // Without, the configuration is not valid.
        let Some(keys) = &settings.encryption else {
            return;
        };
        let authority = match Authority::new(&group.settings) {
            Ok(authority) => authority,
            Err(error) => {
                tracing::error!(error = with_sources(&error), "ACME cannot be used");
                return;
            }
        };
        let context = OrderContext {
            group,
            keys,
            authority,
        };
        let (now, lease) = (self.store.clock(), millis(LEASE));
        let begun =
            self.database
                .begin_acme_orders(&group.account, now, now + lease, now + 2 * lease);
        let lease = match begun.await {
            Ok(Some(lease)) => lease,
            Ok(None) => return,
            Err(error) => {
                let error = with_sources(&error);
                tracing::warn!(error, "certificates cannot be ordered without the database");
                return;
            }
        };
        tokio::select! {
            () = self.order_due(&context) => {}
            () = self.keep(&lease) => {
                tracing::warn!("another gateway continues the orders of certificates");
            }
        }
        if let Err(error) = self.database.extend_acme_orders(&lease, 0).await {
            tracing::debug!(%error, "the lease of orders expires by itself");
        }
    }

    /// Keeps a lease; returns when it is lost.
    async fn keep(&self, lease: &AcmeLease) {
        loop {
            tokio::time::sleep(LEASE / 4).await;
            let until = self.store.clock() + millis(LEASE);
            match self.database.extend_acme_orders(lease, until).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the lease of orders is not extended"),
            }
        }
    }

    async fn order_due(&self, context: &OrderContext<'_>) {
        // Another gateway may have ordered until the lease was acquired.
        let Some(states) = self.certificates.states().await else {
            return;
        };
        let now = self.store.clock();
        let wanted = context.group.domains.iter();
        let due: Vec<&Wanted> = wanted
            .filter(|one| schedule::is_due(states.get(one), now))
            .collect();
        if due.is_empty() {
            return;
        }
        let (keys, settings) = (context.keys, &context.group.settings);
        let opened = account::open(&self.database, keys, settings, &context.authority).await;
        let account = match opened {
            Ok(account) => account,
            Err(failure) => {
                let failure = context.authority.add_pause(failure);
                self.report(due, &failure, &states).await;
                return;
            }
        };
        let mut due = due.into_iter();
        while let Some(one) = due.next() {
            let kind = context.group.settings.challenge;
            let ordering = order::order(&account, &one.domain, kind, &self.store);
            let ordered = timeout(ORDER_TIMEOUT, ordering).await.unwrap_or_else(|_| {
                let message = format!("not completed within {} s", ORDER_TIMEOUT.as_secs());
                Err(OrderFailure::error(message))
            });
            let kept = match ordered {
                Ok(issued) => self.keep_issued(one, &issued, context).await,
                Err(failure) => Err(context.authority.add_pause(failure)),
            };
            let Err(failure) = kept else {
                continue;
            };
            let mut concerned = vec![one];
            if failure.outcome == AcmeOutcome::Error {
                // The others would fail as well.
                concerned.extend(due.by_ref());
            }
            self.report(concerned, &failure, &states).await;
            if failure.is_account_unknown {
                self.forget_account(context.group).await;
            }
        }
    }

    async fn keep_issued(
        &self,
        wanted: &Wanted,
        issued: &IssuedCertificate,
        context: &OrderContext<'_>,
    ) -> Result<(), OrderFailure> {
        let sealed = context
            .keys
            .seal(&wanted.associated_data(), issued.key.as_bytes());
        let not_before = to_millis(issued.parsed.not_before());
        let not_after = to_millis(issued.parsed.not_after());
        let certificate = AcmeCertificate {
            chain: issued.chain.clone(),
            sealed_key: sealed.ok_or_else(|| OrderFailure::error("the key cannot be sealed"))?,
            renew_at: schedule::renew_at(not_before, not_after, rand::random()),
        };
        let (domain, now) = (&wanted.domain, self.store.clock());
        let mut retry_at = 0;
        if now < not_before {
            tracing::warn!(
                domain,
                "the certificate that was issued is not valid yet by this machine's clock"
            );
        } else if now >= certificate.renew_at {
            tracing::warn!(
                domain,
                "the certificate that was issued is due for renewal by this machine's clock"
            );
            retry_at = now + millis(DUE_AT_ISSUE_PAUSE);
        }
        let directory = &wanted.directory;
        let put = self
            .database
            .put_acme_certificate(directory, domain, &certificate, retry_at);
        put.await?;
        self.count(AcmeOutcome::Issued);
        let event = Event::new(EventKind::CertificateIssued);
        self.events.record(event.detail(domain.clone()));
        tracing::info!(
            domain,
            not_after = issued.parsed.not_after(),
            "a certificate was issued"
        );
        self.changed.notify_one();
        Ok(())
    }

    /// Records a failure, which the certificates that are there outlive.
    async fn report(&self, concerned: Vec<&Wanted>, failure: &OrderFailure, states: &States) {
        self.count(failure.outcome);
        let now = self.store.clock();
        for wanted in concerned {
            let domain = &wanted.domain;
            let failures = states.get(wanted).map_or(0, |state| state.failures);
            let pause = schedule::pause(failure.outcome, failures, failure.retry_after);
            let event = Event::new(EventKind::CertificateFailed);
            let event = event.reason(failure.outcome.as_str());
            self.events.record(event.detail(domain.clone()));
            let (error, retry_in_s) = (&failure.message, pause.as_secs());
            match self.certificates.expiry(wanted) {
                Some(expiry) if now < expiry => tracing::warn!(
                    domain,
                    error,
                    retry_in_s,
                    "a certificate was not renewed; the previous one is still valid"
                ),
                _ => tracing::error!(
                    domain,
                    error,
                    retry_in_s,
                    "a certificate was not issued, and there is no valid one"
                ),
            }
            let retry_at = now + millis(pause);
            let directory = &wanted.directory;
            let recorded = self
                .database
                .record_acme_failure(directory, domain, retry_at);
            if let Err(error) = recorded.await {
                tracing::warn!(error = with_sources(&error), "a failure is not recorded");
            }
        }
    }

    /// Has the next attempt create an account, because the authority does not know this one.
    async fn forget_account(&self, group: &WantedFromAccount) {
        let deleted = self.database.put_acme_credentials(&group.account, None);
        if let Err(error) = deleted.await {
            tracing::warn!(error = with_sources(&error), "an account is not deleted");
        }
    }

    fn count(&self, outcome: AcmeOutcome) {
        let orders = &self.metrics.acme_orders;
        orders.with_label_values(&[outcome.as_str()]).inc();
    }
}
