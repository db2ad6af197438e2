//! Idle connections to upstream servers, kept by one worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::dial::{Dialer, UpstreamStream};
use super::timer_wheel::{self, Ticks};
use crate::upstream::AddressId;

/// Idle connections to one server address.
const MAX_IDLE: usize = 1024;
/// Interval between searches for connections that are of no more use.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections of one worker to upstream servers.
pub struct UpstreamConnections {
    pub(super) pool: Pool,
    pub(super) dialer: Dialer,
}

/// The idle ones by address, those used last at the end.
#[derive(Default)]
pub(super) struct Pool(Mutex<HashMap<AddressId, Vec<Idle>>>);

struct Idle {
    stream: UpstreamStream,
    /// The tick at which it is closed.
    until: u32,
}

impl Default for UpstreamConnections {
    fn default() -> UpstreamConnections {
        UpstreamConnections {
            pool: Pool::default(),
            dialer: Dialer::new(),
        }
    }
}

impl UpstreamConnections {
    /// Closes connections that are of no more use, forever.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.pool.sweep();
        }
    }
}

impl Idle {
    /// Whether it can carry a request. One that has been closed, or that has unsolicited bytes, cannot.
    fn is_usable(&mut self) -> bool {
        timer_wheel::now() < self.until && self.stream.is_quiet()
    }
}

impl Pool {
    /// Takes the connection that was used last.
    pub(super) fn take(&self, address: AddressId) -> Option<UpstreamStream> {
        let mut all = self.0.lock();
        let idle = all.get_mut(&address)?;
        while let Some(mut last) = idle.pop() {
            if last.is_usable() {
                return Some(last.stream);
            }
        }
        None
    }

    /// Keeps a connection for up to `timeout`, unless there are many.
    pub(super) fn put(&self, address: AddressId, stream: UpstreamStream, timeout: Ticks) {
        let until = timeout.from_now();
        let mut all = self.0.lock();
        let idle = all.entry(address).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { stream, until });
        }
    }

    /// Closes connections that have been idle for too long, or that their servers have closed.
    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, idle| {
            idle.retain_mut(Idle::is_usable);
            !idle.is_empty()
        });
    }
}
