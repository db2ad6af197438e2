//! HTTP/2 connections to upstream servers, each of which carries many requests at once.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;

use super::dial::{DialError, Http2Connection, Http2Session};
use super::timer_wheel::{self, Ticks};
use crate::upstream::AddressId;

/// The open connections by address, busy or idle, the oldest first.
#[derive(Default)]
pub(in crate::proxy) struct Http2Pool(Mutex<HashMap<AddressId, Vec<Pooled>>>);

struct Pooled {
    connection: Http2Connection,
    /// How long it may have no stream.
    timeout: Ticks,
    /// The tick at which it is closed, if it has had no stream until then.
    until: u32,
}

impl Http2Pool {
    /// Opens a stream of a connection that has room for it.
    pub(super) async fn open(&self, address: AddressId) -> Option<Http2Session> {
        loop {
            let connection = self.with_room(address)?;
            match connection.spawn_stream().await {
                Ok(Some(session)) => return Some(session),
                // The server ends the connection.
                Ok(None) | Err(_) => connection.mark_shutdown(),
            }
        }
    }

    /// The oldest connection that has room: the others can become idle.
    fn with_room(&self, address: AddressId) -> Option<Http2Connection> {
        let mut all = self.0.lock();
        let mut pooled = all.get_mut(&address)?.iter_mut();
        let pooled = pooled.find(|pooled| pooled.connection.can_accept_streams(1))?;
        pooled.until = pooled.timeout.from_now();
        Some(pooled.connection.clone())
    }

    /// Opens the first stream of a new connection, and keeps the connection until it has had no stream
    /// for `timeout`.
    ///
    /// # Errors
    /// The server has ended the connection already.
    pub(super) async fn add(
        &self,
        address: AddressId,
        connection: Http2Connection,
        timeout: Ticks,
    ) -> Result<Http2Session, DialError> {
        let session = connection.spawn_stream().await;
        let session = session.map_err(DialError::of_pingora)?;
        let session = session.ok_or_else(DialError::refused)?;
        let pooled = Pooled {
            connection,
            timeout,
            until: timeout.from_now(),
        };
        let mut all = self.0.lock();
        let connections = all.entry(address).or_default();
        // An owner's pool is swept by nothing else.
        connections.retain_mut(Pooled::is_usable);
        connections.push(pooled);
        Ok(session)
    }

    /// Closes connections that have been idle for too long, or that take no more streams.
    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, connections| {
            connections.retain_mut(Pooled::is_usable);
            !connections.is_empty()
        });
    }
}

impl Pooled {
    fn is_usable(&mut self) -> bool {
        let connection = &self.connection;
        if !connection.is_idle() {
            self.until = self.timeout.from_now();
        }
        let is_open = !connection.is_closed() && !connection.is_shutting_down();
        is_open && timer_wheel::now() < self.until
    }
}

impl fmt::Debug for Http2Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http2Pool").finish_non_exhaustive()
    }
}
