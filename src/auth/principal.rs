//! Who a request was found to be from.

use std::sync::Arc;

use crate::auth::session::Session;
use crate::auth::token::Claims;

/// The user or service on whose behalf a request is made.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The user of a session.
    Session(Arc<Session>),
    /// Issuer and subject of a token without a session.
    Token(Arc<Claims>),
}
