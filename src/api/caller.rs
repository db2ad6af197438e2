//! The caller of an endpoint. Extracting an [`AuthenticatedCaller`] rejects anonymous requests, and
//! changes by cookie from other sites.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use super::{ApiState, Caller};
use crate::auth::credential::{self, PresentedCredential};
use crate::auth::session::{Session, SessionId};
use crate::events::{Event, EventKind};
use crate::identity::{Accounts, User};
use crate::pipeline::admission::{CredentialKind, Identity};
use crate::pipeline::facts::Client;
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::pipeline::same_origin;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::settings::Reloadable;

/// A caller with a valid credential.
pub(super) struct AuthenticatedCaller {
    pub(super) identity: Identity,
    pub(super) client: Client,
    /// The configuration that admitted the caller.
    pub(super) snapshot: Arc<Snapshot>,
}

impl FromRequestParts<ApiState> for AuthenticatedCaller {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ApiState,
    ) -> Result<AuthenticatedCaller, Rejection> {
        let client = parts.extensions.get::<Client>().cloned();
        let client = client.ok_or(Refusal::Internal)?;
        let snapshot = parts.extensions.get::<Arc<Snapshot>>().cloned();
        let snapshot = snapshot.ok_or(Refusal::Internal)?;
        let found = match parts.extensions.get::<Caller>() {
            Some(Caller(found)) => found.clone(),
            None => Ok(None),
        };
        let settings = &snapshot.settings;
        let identity = match found {
            Ok(Some(identity)) => identity,
            Ok(None) => return Err(Refusal::Unauthenticated.into()),
            Err(rejection) => {
                return Err(reject_credential(rejection, settings, &parts.headers));
            }
        };
        if !parts.method.is_safe() {
            match identity.credential_kind {
                CredentialKind::Cookie => {
                    require_allowed_origin(state, settings, &client, &parts.headers)?;
                }
                // A key changes neither sessions nor the profile nor keys.
                CredentialKind::ApiKey => {
                    return Err(Rejection::new(Refusal::Forbidden, Reason::ApiKeyChange));
                }
                CredentialKind::SessionHeader | CredentialKind::Bearer => {}
            }
        }
        Ok(AuthenticatedCaller {
            identity,
            client,
            snapshot,
        })
    }
}

impl AuthenticatedCaller {
    /// The settings of the request.
    pub(super) fn settings(&self) -> &Reloadable {
        &self.snapshot.settings
    }

    /// The session of the credential, if any.
    pub(super) fn session_id(&self) -> Option<SessionId> {
        self.identity.session().map(|session| session.id)
    }

    /// The user's key in the store and the database.
    pub(super) fn user_key(&self) -> Cow<'_, str> {
        self.identity.user_key()
    }

    /// The caller's session, if a provider keeps its user: only the session knows them.
    pub(super) fn external_session(&self) -> Option<&Session> {
        let session = self.identity.session()?;
        let is_external = session.provider.is_some() && !self.settings().identity.has_row(session);
        is_external.then_some(session)
    }

    /// Loads the user from the database to change it; users of a provider are changed there.
    pub(super) async fn find_user_to_change(&self, state: &ApiState) -> Result<User, Rejection> {
        if self.external_session().is_some() {
            return Err(Refusal::Forbidden.into());
        }
        self.find_user(state).await
    }

    /// Loads the user from the database; users of other issuers are not found.
    pub(super) async fn find_user(&self, state: &ApiState) -> Result<User, Rejection> {
        find_user(&state.accounts, &self.user_key()).await
    }
}

/// Loads a user from the database.
pub(super) async fn find_user(accounts: &Accounts, id: &str) -> Result<User, Rejection> {
    if Uuid::try_parse(id).is_err() {
        return Err(Refusal::NotFound.into());
    }
    let user = accounts.user(id).await?;
    user.ok_or(Refusal::NotFound.into())
}

/// The credential of a call.
pub(super) fn presented_credential<'a>(
    headers: &'a HeaderMap,
    settings: &Reloadable,
) -> PresentedCredential<'a> {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let header = settings.api_keys.as_ref();
    let header = header.and_then(|keys| keys.header.clone());
    let api_keys = header.into_iter().flat_map(values);
    let (authorizations, cookies) = (values(AUTHORIZATION), values(COOKIE));
    let cookie = &settings.sessions.cookie.name;
    credential::extract(authorizations, api_keys, cookies, cookie)
}

/// Completes the rejection of a credential: clears a cookie that is no longer valid.
pub(super) fn reject_credential(
    rejection: Rejection,
    settings: &Reloadable,
    headers: &HeaderMap,
) -> Rejection {
    let gone = matches!(
        rejection.refusal,
        Refusal::SessionNotFound | Refusal::SessionExpired | Refusal::SessionRevoked
    );
    let by_cookie = || {
        let presented = presented_credential(headers, settings);
        matches!(presented, PresentedCredential::Cookie(_))
    };
    Rejection {
        clear_cookie: (gone && by_cookie()) || rejection.refusal == Refusal::AmbiguousCredentials,
        ..rejection
    }
}

/// Rejects browser calls from pages of other origins than the gateway's and the allowed ones.
pub(super) fn require_allowed_origin(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Rejection> {
    if is_allowed_origin(settings, client, headers) {
        Ok(())
    } else {
        Err(reject_csrf(state, client))
    }
}

/// Whether a call comes from the gateway's own origin or an allowed one.
pub(super) fn is_allowed_origin(
    settings: &Reloadable,
    client: &Client,
    headers: &HeaderMap,
) -> bool {
    let list: FieldList<'_> = headers.iter().map(Field::from).collect();
    same_origin::is_same_origin(Fields::new(&list), client, allowed_origins(settings))
}

/// Splits a request, unless a browser says that it comes from another site: signing a user in (to
/// the attacker's account) or out is an attack too.
pub(super) fn reject_cross_site(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    request: Request,
) -> Result<(Parts, Body), Rejection> {
    let (parts, body) = request.into_parts();
    require_not_cross_site(state, settings, client, &parts.headers)?;
    Ok((parts, body))
}

/// Refuses what a browser says comes from another site.
fn require_not_cross_site(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Rejection> {
    let list: FieldList<'_> = headers.iter().map(Field::from).collect();
    if same_origin::is_cross_site(Fields::new(&list), client, allowed_origins(settings)) {
        Err(reject_csrf(state, client))
    } else {
        Ok(())
    }
}

fn reject_csrf(state: &ApiState, client: &Client) -> Rejection {
    state
        .events
        .record(Event::new(EventKind::CsrfRejected).ip(client.ip));
    Refusal::CsrfRejected.into()
}

fn allowed_origins(settings: &Reloadable) -> &[String] {
    settings
        .api
        .as_ref()
        .map_or(&[], |api| &api.allowed_origins)
}
