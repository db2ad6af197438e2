//! What ends sessions by a logout at their provider: an index of users by sign-in, marks of recent
//! logouts, and the logout tokens and codes that were used.
//!
//! A sign-in enters the index before its session is written, and looks for a mark afterwards; a logout
//! writes its mark before it uses the index. Whichever comes first, the session ends.

use std::time::Duration;

use super::{Engine, SessionListQuery, Store, StoreError};
use crate::auth::provider_logout::{ProviderLogout, code_key, logout_token_key};
use crate::auth::provider_sign_in::ProviderSignIn;
use crate::auth::session::Session;
use crate::telemetry::metrics::StoreOperation;

/// Retention of a mark: longer than a callback takes.
pub(super) const MARK_TTL: Duration = Duration::from_secs(600);
/// Retention of the number of the latest logout: longer than that of a mark.
pub(super) const NUMBER_TTL: Duration = Duration::from_secs(3_600);
/// Retention of the redemption of a code: as long as its flow lives.
const CODE_TTL: Duration = Duration::from_secs(600);
/// Number of users in one entry of the index. One user is usual; more, if the claim that names users
/// changes.
pub(super) const MAX_USERS: usize = 16;

/// The use of a logout token by one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutTokenUse {
    pub(super) key: [u8; 16],
    pub(super) attempt: u64,
}

impl LogoutTokenUse {
    /// An attempt to use the token with this `jti`.
    pub fn new(provider: &str, token_id: &str) -> LogoutTokenUse {
        LogoutTokenUse {
            key: logout_token_key(provider, token_id),
            attempt: rand::random(),
        }
    }
}

impl Store {
    /// Enters the user of a session that is about to be written into the index of sign-ins.
    pub async fn index_provider_sign_in(&self, session: &Session) -> Result<(), StoreError> {
        let Some(sign_in) = &session.provider else {
            return Ok(());
        };
        let (groups, until) = (sign_in.searched_groups(), session.expires_at);
        self.measured(StoreOperation::IndexSignIn, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.index_sign_in(&groups, &session.user, until);
                    Ok(())
                }
                Engine::Redis(redis) => redis.index_sign_in(&groups, &session.user, until).await,
            }
        })
        .await
    }

    /// Returns the sessions that a logout covers and that have not ended.
    pub async fn provider_sessions(
        &self,
        logout: &ProviderLogout,
    ) -> Result<Vec<Session>, StoreError> {
        let groups = logout.searched_groups();
        let users = self.measured(StoreOperation::SignInUsers, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.sign_in_users(&groups)),
                Engine::Redis(redis) => redis.sign_in_users(&groups).await,
            }
        });
        let everything = SessionListQuery {
            status: None,
            address: None,
            idle: None,
            limit: usize::MAX,
            cursor: None,
        };
        let mut covered = Vec::new();
        for user in users.await? {
            let page = self.sessions_of(&user, everything).await?;
            let sessions = page.entries.into_iter().map(|entry| entry.session);
            covered.extend(sessions.filter(|session| {
                let sign_in = session.provider.as_ref();
                session.ended.is_none() && sign_in.is_some_and(|sign_in| logout.covers(sign_in))
            }));
        }
        Ok(covered)
    }

    /// Records a logout for the sign-ins that are in progress.
    pub async fn mark_logout(&self, logout: &ProviderLogout) -> Result<(), StoreError> {
        let groups = logout.covered_groups();
        self.measured(StoreOperation::MarkLogout, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.mark_logout(&groups);
                    Ok(())
                }
                Engine::Redis(redis) => redis.mark_logout(&groups).await,
            }
        })
        .await
    }

    /// The number of the latest logout; numbers increase.
    pub async fn latest_logout(&self) -> Result<u64, StoreError> {
        self.measured(StoreOperation::LogoutMarks, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.latest_logout()),
                Engine::Redis(redis) => redis.latest_logout().await,
            }
        })
        .await
    }

    /// Whether a logout after this one covers a sign-in.
    pub async fn is_logged_out(
        &self,
        sign_in: &ProviderSignIn,
        latest_before: u64,
    ) -> Result<bool, StoreError> {
        let groups = sign_in.covering_groups();
        let marks = self.measured(StoreOperation::LogoutMarks, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.logout_marks(&groups)),
                Engine::Redis(redis) => redis.logout_marks(&groups).await,
            }
        });
        let latest = marks.await?.into_iter().flatten().max();
        Ok(latest.is_some_and(|latest| latest > latest_before))
    }

    /// Whether a logout token was used.
    pub async fn is_logout_token_used(&self, token: LogoutTokenUse) -> Result<bool, StoreError> {
        self.measured(StoreOperation::LogoutToken, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.is_logout_token_used(token)),
                Engine::Redis(redis) => redis.is_logout_token_used(token).await,
            }
        })
        .await
    }

    /// Records the use of a logout token; `false`: another attempt has used it.
    ///
    /// After an error it may be recorded; see [`Store::release_logout_token`].
    pub async fn use_logout_token(
        &self,
        token: LogoutTokenUse,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.measured(StoreOperation::LogoutToken, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.use_logout_token(token, ttl)),
                Engine::Redis(redis) => redis.use_logout_token(token, ttl).await,
            }
        })
        .await
    }

    /// Records that a code is about to be redeemed; `false`: it was before, by whichever gateway.
    ///
    /// After an error it may be recorded.
    pub async fn redeem_code(&self, provider: &str, code: &str) -> Result<bool, StoreError> {
        let key = code_key(provider, code);
        self.measured(StoreOperation::RedeemCode, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.redeem_code(key, CODE_TTL)),
                Engine::Redis(redis) => redis.redeem_code(&key, CODE_TTL).await,
            }
        })
        .await
    }

    /// Takes back the use of a logout token by this attempt.
    pub async fn release_logout_token(&self, token: LogoutTokenUse) -> Result<(), StoreError> {
        self.measured(StoreOperation::LogoutToken, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.release_logout_token(token);
                    Ok(())
                }
                Engine::Redis(redis) => redis.release_logout_token(token).await,
            }
        })
        .await
    }
}
