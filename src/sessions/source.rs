//! Where sessions live.

use super::durable::DurableSessions;

/// What decides how a session stands.
#[derive(Clone, Copy)]
pub(super) enum SessionSource<'a> {
    /// The store alone.
    Store,
    /// The rows in the database (`sessions.durable`), with a copy in the store.
    Durable(&'a DurableSessions),
}
