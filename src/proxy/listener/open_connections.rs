//! Open connections of a listener, in total and by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::subscriber_network;
use crate::settings::ConnectionLimits;
use crate::telemetry::metrics::Metrics;

/// The open connections of one listener, on all workers.
#[derive(Debug)]
pub(super) struct OpenConnections {
    limit: usize,
    count: AtomicUsize,
    per_address: Option<PerAddress>,
}

#[derive(Debug)]
struct PerAddress {
    limit: usize,
    /// Only addresses that have a connection.
    counts: Mutex<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
}

/// Counts a connection until it is dropped.
pub(super) struct ConnectionGuard {
    open: Arc<OpenConnections>,
    metrics: Arc<Metrics>,
    address: Option<IpAddr>,
}

impl OpenConnections {
    pub(super) fn new(limits: &ConnectionLimits) -> OpenConnections {
        let per_address = limits.connections_per_address;
        OpenConnections {
            limit: limits.connections,
            count: AtomicUsize::new(0),
            per_address: per_address.map(|limit| PerAddress {
                limit,
                counts: Mutex::default(),
            }),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts one more connection. `None`: the maximum is reached.
    pub(super) fn acquire(
        open: &Arc<OpenConnections>,
        metrics: &Arc<Metrics>,
    ) -> Option<ConnectionGuard> {
        let before = open.count.fetch_add(1, Ordering::AcqRel);
        metrics.connections.inc();
        let guard = ConnectionGuard {
            open: Arc::clone(open),
            metrics: Arc::clone(metrics),
            address: None,
        };
        (before < open.limit).then_some(guard)
    }
}

impl ConnectionGuard {
    /// Counts the connection for its address. `false`: that address has reached its maximum.
    pub(super) fn count(&mut self, ip: IpAddr) -> bool {
        let Some(per_address) = &self.open.per_address else {
            return true;
        };
        let address = subscriber_network(ip);
        let mut counts = per_address.counts.lock();
        let count = counts.entry(address).or_insert(0);
        let fits = *count < per_address.limit;
        if fits {
            *count += 1;
            self.address = Some(address);
        }
        fits
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::AcqRel);
        self.metrics.connections.dec();
        if let (Some(address), Some(per_address)) = (self.address, &self.open.per_address) {
            let mut counts = per_address.counts.lock();
            if let Some(count) = counts.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&address);
                }
            }
        }
    }
}
