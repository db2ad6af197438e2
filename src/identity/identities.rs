//! Users of the database who sign in at providers (`users: database`): the user of an identity, and
//! the identities that users and operators link and unlink.

use std::net::IpAddr;

use super::{AccountError, Accounts, UserIdentity, normalize};
use crate::clock;
use crate::database::{
    AssertedIdentity, FirstSignIn, IdentitySignIn, LinkOutcome, UnlinkOutcome, User, WaysToSignIn,
};
use crate::events::{Event, EventKind};
use crate::rejection::{CallbackFault, Refusal};
use crate::settings::provider::UserStorage;
use crate::settings::{Identity, IdentitySource};

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
        Ok(with_permissions_of(user, Some(&identity)))
    }

    /// Links an identity to a user; `ip` is that of the user, `None` for an operator. Its roles and
    /// scopes are in force from the first sign-in with it.
    ///
    /// # Errors
    /// `USER_EXISTS` for an identity of another user, `FORBIDDEN` for too many, `NOT_FOUND` for a
    /// user who does not exist or is disabled, or an unavailable database.
    pub async fn link_identity(
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

    /// Lists a user's identities, the latest used first.
    ///
    /// # Errors
    /// The database does not respond.
    pub async fn identities_of(&self, user: &str) -> Result<Vec<UserIdentity>, AccountError> {
        Ok(self.database.identities_of(user).await?)
    }

    /// Unlinks an identity from a user; `ip` is as in [`Accounts::link_identity`].
    ///
    /// # Errors
    /// `NOT_FOUND`, `LAST_IDENTITY`, or an unavailable store or database: the identity may then be
    /// unlinked already.
    pub async fn unlink_identity(
        &self,
        settings: &Identity,
        user: &str,
        id: &str,
        ip: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        let providers = providers_of_rows(settings);
        let ways = WaysToSignIn {
            password: settings.source == IdentitySource::Builtin,
            providers: &providers,
        };
        let now = clock::unix_millis();
        match self.database.unlink_identity(user, id, ways, now).await? {
            UnlinkOutcome::Unlinked(identity) => {
                self.report_identity(EventKind::IdentityUnlinked, &identity, ip);
                Ok(())
            }
            UnlinkOutcome::NotFound => Err(Refusal::NotFound.into()),
            UnlinkOutcome::Last => Err(Refusal::LastIdentity.into()),
        }
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

/// The providers whose users are in the database.
fn providers_of_rows(settings: &Identity) -> Vec<&str> {
    let providers = settings.providers.iter();
    let providers = providers.filter(|it| matches!(it.users, UserStorage::Database { .. }));
    providers.map(|provider| &*provider.name).collect()
}

/// Adds the roles and scopes of an identity to those of its user.
fn with_permissions_of(mut user: User, identity: Option<&UserIdentity>) -> User {
    if let Some(identity) = identity {
        add_missing(&mut user.roles, &identity.roles);
        add_missing(&mut user.scopes, &identity.scopes);
    }
    user
}

fn add_missing(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}
