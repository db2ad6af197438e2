//! The values of a new session: its record, its access token and the expiry of its refresh token.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::auth::provider_sign_in::ProviderSignIn;
use crate::auth::session::{Millis, Session, SessionToken};
use crate::auth::token::AccessTokenClaims;
use crate::clock;
use crate::database::User;
use crate::identity::{AccountError, ClientInfo};
use crate::sessions::SignInStart;
use crate::settings::Reloadable;
use crate::store::SessionEntry;

/// What opens a session.
#[derive(Debug)]
pub enum SessionOrigin {
    /// A password, checked here or by a backend, or an operator.
    Local,
    Provider {
        sign_in: Arc<ProviderSignIn>,
        start: SignInStart,
        /// Shorter lifetime than `sessions.ttl`.
        ttl: Option<Duration>,
    },
}

pub(super) fn new_session(
    settings: &Reloadable,
    user: &User,
    token: &SessionToken,
    origin: &SessionOrigin,
    client_info: &ClientInfo,
    now: Millis,
) -> Session {
    let ttl = settings.sessions.ttl;
    let (provider, ttl) = match origin {
        SessionOrigin::Local => (None, ttl),
        SessionOrigin::Provider {
            sign_in,
            ttl: shorter,
            ..
        } => (
            Some(Arc::clone(sign_in)),
            shorter.map_or(ttl, |shorter| shorter.min(ttl)),
        ),
    };
    Session {
        id: token.id(),
        user: user.id.clone(),
        email: user.email.clone(),
        username: user.username.as_deref().map(Into::into),
        name: user.name.clone(),
        roles: user.roles.as_slice().into(),
        scopes: user.scopes.as_slice().into(),
        created_at: now,
        expires_at: now.saturating_add(ttl.as_millis() as Millis),
        ip: client_info.ip,
        user_agent: client_info.user_agent.as_str().into(),
        device: client_info.device.clone(),
        ended: None,
        data: crate::auth::session::no_data(),
        revision: 0,
        provider,
        api_key: None,
    }
}

pub(super) fn session_entry(session: Session, client_info: &ClientInfo) -> SessionEntry {
    let activity = crate::auth::session::Activity {
        last_access: session.created_at,
        request_count: 0,
        ip_addresses: vec![client_info.ip],
        live_connections: 0,
    };
    SessionEntry { session, activity }
}

/// Signs an access token for a session.
///
/// Tokens use the gateway's clock, by which they are verified; the store's clock may differ by more
/// than the leeway.
pub(in crate::identity) fn mint_access_token(
    settings: &Reloadable,
    session: &Session,
) -> Result<String, AccountError> {
    let token_id = Uuid::new_v4().to_string();
    let minting = AccessTokenClaims {
        user: &session.user,
        session: session.id,
        token_id: &token_id,
        email: Some(&session.email),
    };
    Ok(settings.tokens.mint(&minting, clock::unix_millis())?)
}

/// Expiry of a refresh token issued now: never after its session.
pub(super) fn refresh_expiry(settings: &Reloadable, session: &Session, now: Millis) -> Millis {
    let ttl = settings.tokens.refresh_ttl.as_millis() as Millis;
    now.saturating_add(ttl).min(session.expires_at)
}
