//! One server of an upstream and what is known about it now.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::address::Address;
use super::connection::Template;
use super::ejection::Ejection;
use crate::settings::{self, ServerAddress};

#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) settings: settings::Server,
    /// `None`: no safe connection can be made with these settings.
    pub(super) template: Option<Template>,
    /// One for each address; empty while a name is not resolved.
    addresses: ArcSwap<Vec<Arc<Address>>>,
    next_address: AtomicUsize,
    in_flight: AtomicUsize,
    /// The word of the active checks; true without them.
    passes_checks: AtomicBool,
    /// Whether `ejection` holds anything; spares the lock on every success.
    suspect: AtomicBool,
    ejection: Mutex<Ejection>,
}

/// What `/admin/upstreams` shows of a server.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ServerDescription {
    url: String,
    weight: usize,
    addresses: Vec<String>,
    /// In rotation.
    healthy: bool,
    in_flight: usize,
    /// RFC 3339; null when it is not ejected.
    ejected_until: Option<String>,
}

impl ServerState {
    pub(super) fn new(settings: settings::Server, template: Option<Template>) -> ServerState {
        ServerState {
            settings,
            template,
            addresses: ArcSwap::default(),
            next_address: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            passes_checks: AtomicBool::new(true),
            suspect: AtomicBool::new(false),
            ejection: Mutex::default(),
        }
    }

    /// Whether its address has to be looked up.
    pub(super) fn is_name(&self) -> bool {
        match &self.settings.address {
            ServerAddress::Tcp { host, .. } => strip_brackets(host).parse::<IpAddr>().is_err(),
            ServerAddress::Unix(_) => false,
        }
    }

    pub(super) fn addresses(&self) -> Arc<Vec<Arc<Address>>> {
        self.addresses.load_full()
    }

    /// Takes newly found addresses. Tells whether they differ from the known ones.
    pub(super) fn set_addresses(&self, new: Vec<Address>) -> bool {
        let known = self.addresses.load();
        let same = known.len() == new.len()
            && known
                .iter()
                .zip(&new)
                .all(|(a, b)| a.peer._address == b.peer._address);
        if !same {
            self.addresses
                .store(Arc::new(new.into_iter().map(Arc::new).collect()));
        }
        !same
    }

    /// The next of its addresses, in turn, passing over those that refused lately.
    pub(super) fn next_address(&self) -> Option<Arc<Address>> {
        let addresses = self.addresses.load();
        if addresses.len() < 2 {
            return addresses.first().cloned();
        }
        let turn = self.next_address.fetch_add(1, Ordering::Relaxed);
        let (before, after) = addresses.split_at_checked(turn.checked_rem(addresses.len())?)?;
        let now = Instant::now();
        let mut in_turn = after.iter().chain(before);
        in_turn
            .find(|address| !address.is_avoided(now))
            .or(after.first())
            .cloned()
    }

    /// Could be in rotation, but for ejection.
    pub(super) fn is_usable(&self) -> bool {
        self.passes_checks.load(Ordering::Relaxed) && !self.addresses.load().is_empty()
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.suspect.load(Ordering::Relaxed) && self.ejection.lock().is_out(now)
    }

    /// Takes the verdict of active checks. Tells whether it is a new one.
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

    /// Forgets failures. Tells whether the server was ejected.
    pub(super) fn record_success(&self, now: Instant) -> bool {
        if !self.suspect.load(Ordering::Relaxed) {
            return false;
        }
        let mut ejection = self.ejection.lock();
        let was_out = ejection.is_out(now);
        ejection.record_success();
        self.suspect.store(false, Ordering::Relaxed);
        was_out
    }

    /// Notes a failure; answers with the time until its return when this ejects it.
    pub(super) fn record_failure(&self, now: Instant) -> Option<std::time::Duration> {
        let mut ejection = self.ejection.lock();
        self.suspect.store(true, Ordering::Relaxed);
        ejection.record_failure(now, rand::random())
    }

    pub(super) fn describe(&self, healthy: bool) -> ServerDescription {
        let now = Instant::now();
        let until = self.ejection.lock().until(now);
        let until = until.map(|until| {
            let at = std::time::SystemTime::now() + until.saturating_duration_since(now);
            humantime::format_rfc3339_millis(at).to_string()
        });
        let addresses = self.addresses.load();
        let shown = addresses
            .iter()
            .map(|address| address.peer._address.to_string());
        ServerDescription {
            url: self.settings.url.to_string(),
            weight: self.settings.weight,
            addresses: shown.collect(),
            healthy,
            in_flight: self.in_flight(),
            ejected_until: until,
        }
    }
}

/// A host without the brackets of an IPv6 literal.
pub(super) fn strip_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}
