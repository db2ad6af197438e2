//! Provider tokens of a session as store and database hold them.

use std::sync::Arc;

/// Maximum length of sealed tokens.
pub const MAX_SEALED_BYTES: usize = 128 * 1024;

/// Sealed provider tokens of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedTokens {
    /// Counts the writes of this session's tokens, from 1.
    pub version: u64,
    pub sealed: Arc<[u8]>,
}

impl std::fmt::Debug for SealedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedTokens({})", self.version)
    }
}

/// Outcome of a write of provider tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutTokensOutcome {
    Written,
    /// They have changed since they were read.
    Changed,
    /// The session is not alive.
    Gone,
}
