//! Rows of sessions that signed in at a provider.

use super::DurableSessions;
use crate::auth::provider_logout::ProviderLogout;
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::{Millis, Session, SessionId};
use crate::database;

impl DurableSessions {
    /// Reads the sessions that a logout covers and that have not ended.
    ///
    /// # Errors
    /// The database does not respond.
    pub(in crate::sessions) async fn provider_sessions(
        &self,
        logout: &ProviderLogout,
    ) -> Result<Vec<Session>, database::Error> {
        self.database.provider_sessions(logout).await
    }

    /// Reads provider tokens; the outer `None`: the session has no row.
    ///
    /// # Errors
    /// The database does not respond.
    pub(in crate::sessions) async fn provider_tokens(
        &self,
        id: SessionId,
    ) -> Result<Option<Option<SealedTokens>>, database::Error> {
        self.database.provider_tokens(id).await
    }

    /// Writes provider tokens; `None`: the session has no row.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn put_provider_tokens(
        &self,
        id: SessionId,
        tokens: &SealedTokens,
        now: Millis,
    ) -> Result<Option<PutTokensOutcome>, database::Error> {
        self.database.put_provider_tokens(id, tokens, now).await
    }
}
