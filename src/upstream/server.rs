//! One server of an upstream: settings, addresses and health.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::address::Address;
use super::connection::ConnectionSettings;
use super::ejection::Ejection;
use crate::clock;
use crate::settings::{self, ServerAddress};

#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) settings: settings::Server,
    /// `None` if no secure connection can be made with these settings.
    pub(super) connection: Option<Arc<ConnectionSettings>>,
    /// Empty while a name is not resolved.
    addresses: ArcSwap<Vec<Arc<Address>>>,
    next_address: AtomicUsize,
    in_flight: AtomicUsize,
    /// The result of the active health check; true without one.
    passes_checks: AtomicBool,
    /// Whether `ejection` has any failures; avoids the lock on every success.
    suspect: AtomicBool,
    ejection: Mutex<Ejection>,
}

/// A server as `/admin/upstreams` shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ServerDescription {
    url: String,
    weight: usize,
    addresses: Vec<String>,
    /// In rotation.
    healthy: bool,
    in_flight: usize,
    /// RFC 3339; null if the server is not ejected.
    ejected_until: Option<String>,
}

impl ServerState {
    pub(super) fn new(
        settings: settings::Server,
        connection: Option<Arc<ConnectionSettings>>,
    ) -> ServerState {
        ServerState {
            settings,
            connection,
            addresses: ArcSwap::default(),
            next_address: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            passes_checks: AtomicBool::new(true),
            suspect: AtomicBool::new(false),
            ejection: Mutex::default(),
        }
    }

    /// Whether the address is a name that must be resolved.
    pub(super) fn is_name(&self) -> bool {
        match &self.settings.address {
            ServerAddress::Tcp { host, .. } => strip_brackets(host).parse::<IpAddr>().is_err(),
            ServerAddress::Unix(_) => false,
        }
    }

    pub(super) fn addresses(&self) -> Arc<Vec<Arc<Address>>> {
        self.addresses.load_full()
    }

    /// Replaces the addresses and returns whether they changed.
    pub(super) fn set_addresses(&self, new: Vec<Address>) -> bool {
        let current = self.addresses.load();
        let same = current.len() == new.len()
            && current
                .iter()
                .zip(&new)
                .all(|(a, b)| a.socket() == b.socket());
        if !same {
            self.addresses
                .store(Arc::new(new.into_iter().map(Arc::new).collect()));
        }
        !same
    }

    /// Selects the next address round-robin, skipping those that refused recently.
    pub(super) fn next_address(&self) -> Option<Arc<Address>> {
        let addresses = self.addresses.load();
        if addresses.len() < 2 {
            return addresses.first().cloned();
        }
        let next = self.next_address.fetch_add(1, Ordering::Relaxed);
        let (before, after) = addresses.split_at_checked(next.checked_rem(addresses.len())?)?;
        let now = Instant::now();
        let mut candidates = after.iter().chain(before);
        candidates
            .find(|address| !address.is_avoided(now))
            .or(after.first())
            .cloned()
    }

    /// Whether the server can be in rotation, apart from ejection.
    pub(super) fn is_usable(&self) -> bool {
        self.passes_checks.load(Ordering::Relaxed) && !self.addresses.load().is_empty()
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.suspect.load(Ordering::Relaxed) && self.ejection.lock().is_ejected(now)
    }

    /// Records the result of the active health check and returns whether it changed.
    pub(super) fn set_passes_checks(&self, passes: bool) -> bool {
        self.passes_checks.swap(passes, Ordering::Relaxed) != passes
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Clears failures and returns whether the server was ejected.
    pub(super) fn record_success(&self) -> bool {
        if !self.suspect.load(Ordering::Relaxed) {
            return false;
        }
        let mut ejection = self.ejection.lock();
        let was_ejected = ejection.is_ejected(Instant::now());
        ejection.record_success();
        self.suspect.store(false, Ordering::Relaxed);
        was_ejected
    }

    /// Records a failure. Returns the length of the ejection if this failure causes one.
    pub(super) fn record_failure(&self, now: Instant) -> Option<std::time::Duration> {
        let mut ejection = self.ejection.lock();
        self.suspect.store(true, Ordering::Relaxed);
        ejection.record_failure(now, rand::random())
    }

    pub(super) fn describe(&self, healthy: bool) -> ServerDescription {
        let now = Instant::now();
        let until = self.ejection.lock().until(now);
        let until = until.map(|until| {
            let at = clock::system_time() + until.saturating_duration_since(now);
            humantime::format_rfc3339_millis(at).to_string()
        });
        let addresses = self.addresses.load();
        let displayed = addresses.iter().map(|address| address.socket().to_string());
        ServerDescription {
            url: self.settings.url.to_string(),
            weight: self.settings.weight,
            addresses: displayed.collect(),
            healthy,
            in_flight: self.in_flight(),
            ejected_until: until,
        }
    }
}

/// Strips the brackets of an IPv6 literal from a host.
pub(super) fn strip_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}
