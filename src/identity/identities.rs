//! Users of the database who sign in at providers (`users: database`): the user of an identity, and
//! the identities that users and operators link and unlink.

use std::net::IpAddr;
use std::sync::Arc;

use super::oidc::ProviderUser;
use super::{AccountError, Accounts, UserIdentity, normalize};
use crate::auth::session::{EndReason, Session, SessionId};
use crate::clock;
use crate::database::{
    AssertedIdentity, FirstSignIn, IdentitySignIn, LinkOutcome, UnlinkOutcome, User, WaysToSignIn,
};
use crate::events::{Event, EventKind};
use crate::rejection::{CallbackFault, Refusal};
use crate::settings::provider::UserStorage;
use crate::settings::{Identity, IdentitySource, Reloadable};

impl Accounts {
    /// Finds the user of an identity, or creates or joins one where the provider's settings permit it.
    ///
    /// `asserted.email` is an email that the provider has verified; one that no user can have counts
    /// as none. The roles and scopes of the returned user are those of the row and of the identity
    /// together, as they are in the session.
    ///
    /// # Errors
    /// `SIGN_IN_REFUSED`, `USER_EXISTS`, or an unavailable database.
    pub async fn user_for_identity(
        &self,
        asserted: AssertedIdentity<'_>,
        rules: FirstSignIn,
        ip: IpAddr,
    ) -> Result<User, AccountError> {
        let email = asserted
            .email
            .and_then(|email| normalize::email(email).ok());
        let name = asserted
            .name
            .filter(|name| normalize::display_name(name).is_ok());
        let asserted = AssertedIdentity {
            email: email.as_deref(),
            name,
            ..asserted
        };
        let now = clock::unix_millis();
        let outcome = self
            .database
            .sign_in_identity(&asserted, rules, now)
            .await?;
        let (user, identity) = match outcome {
            IdentitySignIn::Known(user, identity) => (user, identity),
            IdentitySignIn::Created(user, identity) => {
                self.report_identity(EventKind::UserCreated, &identity, Some(ip));
                (user, identity)
            }
            IdentitySignIn::Joined(user, identity) => {
                self.report_identity(EventKind::IdentityLinked, &identity, Some(ip));
                (user, identity)
            }
            IdentitySignIn::Unknown => return Err(CallbackFault::UnknownIdentity.into()),
            IdentitySignIn::EmailTaken => return Err(CallbackFault::EmailTaken.into()),
        };
        if user.disabled {
            return Err(CallbackFault::ProviderUserDisabled.into());
        }
        // The provider asserts other roles or scopes than before.
        if user.updated_at >= now {
            let change = self.begin_change(&user.id);
            // A failed attempt is repeated in the background.
            if self.sessions.update_api_keys_of(&user.id).await.is_ok() {
                change.complete();
            }
        }
        Ok(user.with_permissions_of(&identity))
    }

    /// Replaces the mapped roles and scopes of the identity of a session, in all of its sessions.
    ///
    /// # Errors
    /// `SIGN_IN_REFUSED` if the user no longer has the identity or is disabled, or an unavailable
    /// store or database: the change is to be repeated then.
    pub(super) async fn map_claims_anew(
        &self,
        session: &Session,
        claims: &ProviderUser,
    ) -> Result<(), AccountError> {
        let row = self.database.user(&session.user).await?;
        let row = row.filter(|user| !user.disabled);
        let row = row.ok_or(CallbackFault::ProviderUserDisabled)?;
        let identities = self.database.identities_of(&row.id).await?;
        let identity = identities.iter().find(|identity| identity.is_of(session));
        let identity = identity.ok_or(CallbackFault::UnknownIdentity)?;
        let asserted = AssertedIdentity {
            provider: &identity.provider,
            issuer: &identity.issuer,
            subject: &identity.subject,
            email: None,
            name: None,
            roles: &claims.roles,
            scopes: &claims.scopes,
        };
        let now = clock::unix_millis();
        let change = self.begin_change(&row.id);
        let set = self.database.set_identity_permissions(&asserted, now);
        let is_changed = set.await?.is_some();
        let mapped = UserIdentity {
            roles: claims.roles.clone(),
            scopes: claims.scopes.clone(),
            ..identity.clone()
        };
        let user = row.with_permissions_of(&mapped);
        // An earlier attempt may have failed after its change of the identity.
        if is_changed || *session.roles != *user.roles || *session.scopes != *user.scopes {
            self.sessions.update_identity(&user.id).await?;
        }
        change.complete();
        Ok(())
    }

    /// Links an identity to a user; `ip` is that of the user, `None` for an operator. Its roles and
    /// scopes are in force from the first sign-in with it.
    ///
    /// # Errors
    /// `USER_EXISTS` for an identity of another user, `FORBIDDEN` for too many, `NOT_FOUND` for a
    /// user who does not exist, or an unavailable database.
    pub(super) async fn link_identity(
        &self,
        user: &str,
        asserted: AssertedIdentity<'_>,
        ip: Option<IpAddr>,
    ) -> Result<UserIdentity, AccountError> {
        let email = asserted
            .email
            .and_then(|email| normalize::email(email).ok());
        let asserted = AssertedIdentity {
            email: email.as_deref(),
            ..asserted
        };
        let now = clock::unix_millis();
        match self.database.link_identity(user, &asserted, now).await? {
            LinkOutcome::Linked(identity) => {
                self.report_identity(EventKind::IdentityLinked, &identity, ip);
                Ok(identity)
            }
            LinkOutcome::AlreadyLinked(identity) => Ok(identity),
            LinkOutcome::Taken => Err(CallbackFault::IdentityTaken.into()),
            LinkOutcome::TooMany => Err(Refusal::Forbidden.into()),
            LinkOutcome::NoUser => Err(Refusal::NotFound.into()),
        }
    }

    /// Links an identity that an operator names.
    ///
    /// # Errors
    /// As for `Accounts::link_identity`.
    pub async fn link_named_identity(
        &self,
        user: &str,
        name: &IdentityName,
    ) -> Result<UserIdentity, AccountError> {
        let asserted = AssertedIdentity {
            provider: &name.provider,
            issuer: &name.issuer,
            subject: &name.subject,
            email: None,
            name: None,
            roles: &[],
            scopes: &[],
        };
        self.link_identity(user, asserted, None).await
    }

    /// Lists a user's identities, the latest used first.
    ///
    /// # Errors
    /// The database does not respond.
    pub async fn identities_of(&self, user: &str) -> Result<Vec<UserIdentity>, AccountError> {
        Ok(self.database.identities_of(user).await?)
    }

    /// Unlinks an identity from a user, and ends the sessions of sign-ins with it: someone else may
    /// have used it.
    ///
    /// # Errors
    /// `NOT_FOUND`, `LAST_IDENTITY`, or an unavailable store or database: the identity may then be
    /// unlinked already.
    pub async fn unlink_identity(
        &self,
        settings: &Reloadable,
        user: &str,
        id: &str,
        by: UnlinkedBy,
    ) -> Result<(), AccountError> {
        let issuers = issuers_of_rows(&settings.identity);
        let providers = issuers.iter().map(|(name, issuer)| (&**name, &**issuer));
        let providers: Vec<(&str, &str)> = providers.collect();
        let ways = WaysToSignIn {
            password: settings.identity.source == IdentitySource::Builtin,
            providers: &providers,
        };
        let row = self.database.user(user).await?.ok_or(Refusal::NotFound)?;
        let linked = self.database.identities_of(user).await?;
        let identity = unlinked(ways.judge_unlinking(&row, linked, id))?;
        // The sessions end first: until that is certain, the identity stays, and the request can be
        // repeated.
        self.end_sessions_of(&identity, by).await?;
        let now = clock::unix_millis();
        let change = self.begin_change(user);
        let outcome = self.database.unlink_identity(user, id, ways, now).await?;
        let identity = match unlinked(outcome) {
            Ok(identity) => identity,
            Err(refusal) => {
                change.complete();
                return Err(refusal.into());
            }
        };
        self.report_identity(EventKind::IdentityUnlinked, &identity, by.address());
        // Sessions opened in the meantime.
        self.end_sessions_of(&identity, by).await?;
        self.sessions.update_identity(user).await?;
        change.complete();
        Ok(())
    }

    /// Ends the sessions of sign-ins with an identity, except for the one that unlinks it.
    async fn end_sessions_of(
        &self,
        identity: &UserIdentity,
        by: UnlinkedBy,
    ) -> Result<(), AccountError> {
        let (kept, reason) = match by {
            UnlinkedBy::User(session, _) => (session, EndReason::Terminated),
            UnlinkedBy::Operator => (None, EndReason::Admin),
        };
        let is_of_identity =
            |session: &Session| identity.is_of(session) && Some(session.id) != kept;
        self.end_sessions_where(&identity.user, is_of_identity, reason, by.address())
            .await
    }

    fn report_identity(&self, kind: EventKind, identity: &UserIdentity, ip: Option<IpAddr>) {
        let event = Event::new(kind)
            .user(&identity.user)
            .provider(&identity.provider);
        self.events.record(match ip {
            Some(ip) => event.ip(ip),
            None => event,
        });
    }
}

/// An identity as an operator names it.
#[derive(Debug, Clone)]
pub struct IdentityName {
    /// The provider's name in the configuration.
    pub provider: String,
    pub issuer: String,
    pub subject: String,
}

impl IdentityName {
    /// Whether it names this identity.
    pub fn is_of(&self, identity: &UserIdentity) -> bool {
        self.provider == identity.provider
            && self.issuer == identity.issuer
            && self.subject == identity.subject
    }
}

/// Who unlinks an identity.
#[derive(Debug, Clone, Copy)]
pub enum UnlinkedBy {
    /// The user, with the session and the address of the call.
    User(Option<SessionId>, IpAddr),
    Operator,
}

impl UnlinkedBy {
    fn address(self) -> Option<IpAddr> {
        match self {
            UnlinkedBy::User(_, ip) => Some(ip),
            UnlinkedBy::Operator => None,
        }
    }
}

fn unlinked(outcome: UnlinkOutcome) -> Result<UserIdentity, Refusal> {
    match outcome {
        UnlinkOutcome::Unlinked(identity) => Ok(*identity),
        UnlinkOutcome::NotFound => Err(Refusal::NotFound),
        UnlinkOutcome::Last => Err(Refusal::LastIdentity),
    }
}

/// Names and issuers of the providers whose users are in the database.
fn issuers_of_rows(settings: &Identity) -> Vec<(Arc<str>, String)> {
    let providers = settings.providers.iter();
    let providers = providers.filter(|it| matches!(it.users, UserStorage::Database { .. }));
    let issuers = providers.flat_map(|provider| {
        let issuers = provider.issuers().into_iter();
        issuers.map(|issuer| (Arc::clone(&provider.name), issuer))
    });
    issuers.collect()
}
