//! Why an operation has no answer.

use crate::rejection::{Reason, Refusal, Rejection};

/// Why the store gave no answer. Never "no": the answer is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    #[error("the store did not answer in time")]
    Timeout,
    #[error("the store cannot be reached")]
    Unreachable,
    /// It was too slow too often, and is asked by the probe alone.
    #[error("the store is too slow and is left alone for now")]
    BreakerOpen,
    #[error("the store refused the operation")]
    Refused,
    /// It serves reads: what it has is known.
    #[error("the store takes no writes at the moment")]
    ReadOnly,
    #[error("the store answered something that is not understood")]
    Malformed,
    /// It is done here, and announced; who asked must not be told that it is done for good.
    #[error("too few replicas have confirmed the revocation in time")]
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

    /// The label of `portcullis_store_errors_total`.
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
