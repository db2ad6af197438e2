//! Errors of operations on users and sessions.

use std::error::Error;

use super::passwords::{self, HashError};
use crate::auth::token;
use crate::database;
use crate::rejection::{CallbackFault, Refusal, Rejection};
use crate::sessions::SessionError;
use crate::store::StoreError;

/// An expected outcome that is a rejection, or a malfunction.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("rejected: {}", .0.refusal.code())]
    Rejected(Rejection),
    #[error("the store did not respond")]
    Store(#[from] StoreError),
    #[error("the database did not respond")]
    Database(#[from] database::Error),
    #[error("an access token could not be made")]
    Token(#[from] token::SignError),
    #[error("a password could not be hashed")]
    Hash,
}

impl From<Rejection> for AccountError {
    fn from(rejection: Rejection) -> AccountError {
        AccountError::Rejected(rejection)
    }
}

impl From<Refusal> for AccountError {
    fn from(refusal: Refusal) -> AccountError {
        AccountError::Rejected(refusal.into())
    }
}

impl From<CallbackFault> for AccountError {
    fn from(fault: CallbackFault) -> AccountError {
        AccountError::Rejected(fault.into())
    }
}

impl From<SessionError> for AccountError {
    fn from(error: SessionError) -> AccountError {
        match error {
            SessionError::Store(error) => AccountError::Store(error),
            SessionError::Database(error) => AccountError::Database(error),
        }
    }
}

impl From<HashError> for AccountError {
    fn from(error: HashError) -> AccountError {
        match error {
            HashError::Busy => Rejection {
                retry_after: Some(passwords::RETRY_AFTER),
                ..Refusal::Overloaded.into()
            }
            .into(),
            HashError::Failed => AccountError::Hash,
        }
    }
}

/// The rejection that a client receives. A malfunction is logged here, once.
impl From<AccountError> for Rejection {
    fn from(error: AccountError) -> Rejection {
        match error {
            AccountError::Rejected(rejection) => rejection,
            AccountError::Store(error) => error.into(),
            AccountError::Database(error) => {
                tracing::error!(error = &error as &dyn Error, "the database did not respond");
                Refusal::StoreUnavailable.into()
            }
            AccountError::Token(_) | AccountError::Hash => {
                tracing::error!(%error, "an endpoint failed");
                Refusal::Internal.into()
            }
        }
    }
}
