//! Certificates by ACME: ordered once for a fleet, kept in the database, renewed in time.
//!
//! One gateway at a time orders with an account, under a lease in the database. Every gateway reads the
//! certificates from there, and any of them responds to the authority's challenges, from the store.
//! Orders are tasks of their own, so that an authority that is slow delays no other one.

mod account;
mod authority;
mod certificates;
mod failure;
mod order;
mod orders;
mod probe;
mod running_orders;
mod schedule;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
pub(crate) use probe::{AcmeDirectory, probe};
use tokio::sync::Notify;
use tokio::time::timeout;

use self::certificates::Certificates;
use self::orders::Orders;
use self::running_orders::RunningOrders;
use self::wanted::{Wanted, wanted};
use crate::database::Database;
use crate::events::Events;
use crate::pipeline::snapshot::Snapshot;
use crate::settings::Reloadable;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// Interval at which certificates that other gateways have ordered are looked for.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same while a certificate is missing or due.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// Orders, reads and serves certificates.
#[derive(Clone)]
pub struct Acme {
    certificates: Arc<Certificates>,
    orders: Arc<Orders>,
    /// Notified of a reload, and of a new certificate.
    changed: Arc<Notify>,
}

impl Acme {
    pub fn new(database: Database, store: Store, events: Events, metrics: Arc<Metrics>) -> Acme {
        let certificates = Certificates::new(database.clone(), Arc::clone(&metrics));
        let certificates = Arc::new(certificates);
        let changed = Arc::new(Notify::new());
        Acme {
            orders: Arc::new(Orders {
                database,
                store,
                events,
                metrics,
                certificates: Arc::clone(&certificates),
                changed: Arc::clone(&changed),
            }),
            certificates,
            changed,
        }
    }

    /// Reads the certificates that the database has, so that a gateway serves them from its first
    /// connection on. Waits for no authority.
    pub(super) async fn load(&self, settings: &Reloadable) {
        if has_acme(settings) {
            self.certificates.refresh(settings).await;
            self.certificates.serve(settings);
        }
    }

    /// Has a configuration that is about to be in force serve the certificates that are known.
    pub(super) fn prepare(&self, settings: &Reloadable) {
        self.certificates.serve(settings);
    }

    /// Orders what a configuration that is in force lacks, without waiting for the interval.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Reads, orders and renews certificates until the process ends.
    pub(super) async fn run(self, snapshot: Arc<ArcSwap<Snapshot>>) {
        let mut running = RunningOrders::default();
        loop {
            let pause = self.keep(&snapshot, &mut running).await;
            let _ = timeout(pause, self.changed.notified()).await;
        }
    }

    /// Serves what there is and starts the orders of what is due; returns the pause until the next look.
    async fn keep(&self, snapshot: &ArcSwap<Snapshot>, running: &mut RunningOrders) -> Duration {
        let current = snapshot.load_full();
        let settings = &current.settings;
        if settings.encryption.is_none() || !has_acme(settings) {
            return INTERVAL;
        }
        let Some(states) = self.certificates.refresh(settings).await else {
            return INTERVAL;
        };
        // A reload may have put another configuration in force meanwhile.
        self.certificates.serve(&snapshot.load().settings);
        let now = self.orders.store.clock();
        let is_due = |one: &Wanted| schedule::is_due(states.get(one), now);
        for group in wanted::by_account(settings) {
            if group.domains.iter().any(is_due) {
                running.start(&self.orders, group, &current);
            }
        }
        let renewals = wanted(settings).into_iter().map(|one| {
            let state = states.get(&one).filter(|state| state.version > 0);
            let wait = state.map_or(0, |state| state.renew_at.saturating_sub(now));
            Duration::from_millis(wait)
        });
        let pause = renewals.fold(INTERVAL, Duration::min);
        pause.max(SHORT_INTERVAL)
    }
}

fn has_acme(settings: &Reloadable) -> bool {
    settings.served_listeners().any(|one| one.acme.is_some())
}
