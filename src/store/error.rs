//! Errors of store operations.

use crate::rejection::{Reason, Refusal, Rejection};

/// Why the result of a store operation is unknown; never means "no".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    #[error("the store did not respond in time")]
    Timeout,
    #[error("the store is unreachable")]
    Unreachable,
    /// The store timed out repeatedly; until it recovers, only the probe sends requests.
    #[error("the store is too slow; its circuit breaker is open")]
    BreakerOpen,
    #[error("the store refused the operation")]
    Refused,
    /// The store still serves reads.
    #[error("the store is read-only at the moment")]
    ReadOnly,
    #[error("the store sent a malformed reply")]
    Malformed,
    /// The revocation is in force and announced, but must not be reported as durable.
    #[error("too few replicas confirmed the revocation in time")]
    Unreplicated,
}

impl StoreError {
    pub(super) const ALL: [StoreError; 7] = [
        StoreError::Timeout,
        StoreError::Unreachable,
        StoreError::BreakerOpen,
        StoreError::Refused,
        StoreError::ReadOnly,
        StoreError::Malformed,
        StoreError::Unreplicated,
    ];

    /// The label value in `portcullis_store_errors_total`.
    pub fn kind(self) -> &'static str {
        match self {
            StoreError::Timeout => "timeout",
            StoreError::Unreachable => "unreachable",
            StoreError::BreakerOpen => "breaker_open",
            StoreError::Refused => "refused",
            StoreError::ReadOnly => "read_only",
            StoreError::Malformed => "malformed",
            StoreError::Unreplicated => "unreplicated",
        }
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Rejection {
        // The store has logged and counted it.
        Rejection::new(
            Refusal::StoreUnavailable,
            match error {
                StoreError::Timeout => Reason::StoreTimeout,
                StoreError::Unreachable => Reason::StoreUnreachable,
                StoreError::BreakerOpen => Reason::StoreBreakerOpen,
                StoreError::Refused => Reason::StoreRefused,
                StoreError::ReadOnly => Reason::StoreReadOnly,
                StoreError::Malformed => Reason::StoreMalformed,
                StoreError::Unreplicated => Reason::StoreUnreplicated,
            },
        )
    }
}
