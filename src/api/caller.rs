//! Who calls. Whoever asks for a [`Person`] can forget neither to refuse nobody, nor to refuse a
//! change by cookie that comes from another site.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use uuid::Uuid;

use super::answer::Refused;
use super::{Caller, Desk, origin};
use crate::accounts::Accounts;
use crate::auth::credential;
use crate::auth::credential::Presented;
use crate::auth::session::SessionId;
use crate::directory::User;
use crate::events::{Event, Kind};
use crate::pipeline::admission::{Client, Identity, PresentedBy};
use crate::refusal::Refusal;
use crate::settings::Live;

/// Somebody whose credential holds.
pub(super) struct Person {
    pub(super) identity: Identity,
    pub(super) client: Client,
}

impl FromRequestParts<Desk> for Person {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Person, Refused> {
        let client = parts.extensions.get::<Client>().cloned();
        let client = client.ok_or(Refusal::Internal)?;
        let found = match parts.extensions.get::<Caller>() {
            Some(Caller(found)) => found.clone(),
            None => Ok(None),
        };
        let live = desk.live.load();
        let identity = match found {
            Ok(Some(identity)) => identity,
            Ok(None) => return Err(Refusal::Unauthenticated.into()),
            Err(refusal) => return Err(refuse(refusal, &live, &parts.headers)),
        };
        if identity.presented == PresentedBy::Cookie && !parts.method.is_safe() {
            must_be_same_origin(desk, &live, &client, &parts.headers)?;
        }
        Ok(Person { identity, client })
    }
}

impl Person {
    /// The session that asks, if the credential has one.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.identity.session().map(|session| session.id)
    }

    /// What the store knows the person by: a user of ours by the id; a user of another issuer, who
    /// may have the same one, by issuer and id.
    pub(super) fn key(&self) -> String {
        match &self.identity.token {
            Some(token) if token.trusted.is_some() && self.identity.session().is_none() => {
                format!("{}\0{}", token.issuer, self.identity.user())
            }
            _ => self.identity.user().to_owned(),
        }
    }

    /// The user in our directory; users of other issuers are in theirs.
    pub(super) async fn user(&self, desk: &Desk) -> Result<User, Refused> {
        user(&desk.accounts, &self.key()).await
    }
}

/// A user of ours.
pub(super) async fn user(accounts: &Accounts, id: &str) -> Result<User, Refused> {
    if Uuid::try_parse(id).is_err() {
        return Err(Refusal::NotFound.into());
    }
    let user = accounts.directory().user(id).await?;
    user.ok_or(Refusal::NotFound.into())
}

/// Refuses a credential that does not hold; a cookie that is of no use any more is cleared.
pub(super) fn refuse(refusal: Refusal, live: &Live, headers: &HeaderMap) -> Refused {
    let gone = matches!(
        refusal,
        Refusal::SessionNotFound | Refusal::SessionExpired | Refusal::SessionRevoked
    );
    let cookie = &live.sessions.cookie.name;
    let by_cookie = || matches!(credential::extract(headers, cookie), Presented::Cookie(_));
    Refused {
        clear_cookie: (gone && by_cookie()) || refusal == Refusal::AmbiguousCredentials,
        ..Refused::from(refusal)
    }
}

/// Refuses a call of a browser that does not come from our own pages, or from those that are
/// allowed.
pub(super) fn must_be_same_origin(
    desk: &Desk,
    live: &Live,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if is_same_origin(live, client, headers) {
        Ok(())
    } else {
        Err(csrf_rejected(desk, client))
    }
}

/// Whether a call comes from our own pages, or from those that are allowed.
pub(super) fn is_same_origin(live: &Live, client: &Client, headers: &HeaderMap) -> bool {
    origin::same_origin(headers, client, allowed_origins(live))
}

/// Refuses what a browser says comes from another site.
pub(super) fn must_not_be_foreign(
    desk: &Desk,
    live: &Live,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if origin::is_foreign(headers, client, allowed_origins(live)) {
        Err(csrf_rejected(desk, client))
    } else {
        Ok(())
    }
}

fn csrf_rejected(desk: &Desk, client: &Client) -> Refused {
    desk.events
        .record(Event::new(Kind::CsrfRejected).ip(client.ip));
    Refusal::CsrfRejected.into()
}

fn allowed_origins(live: &Live) -> &[String] {
    live.api.as_ref().map_or(&[], |api| &api.allowed_origins)
}
