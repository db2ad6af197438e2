//! User administration: create, list, change and delete.

use secrecy::{ExposeSecret, SecretString};

use super::user_changes::NewPassword;
use super::{AccountError, Accounts, FieldErrors, normalize};
use crate::auth::session::{EndReason, Millis};
use crate::clock;
use crate::database::{self, User, UserPage, UserUpdate, UserUpdateOutcome};
use crate::events::{Event, EventKind};
use crate::rejection::{Refusal, Rejection};
use crate::settings::{HashCost, PasswordRules};

/// A new user, as typed.
pub struct NewUser {
    pub email: String,
    pub username: Option<String>,
    pub name: Option<String>,
    pub password: SecretString,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub disabled: bool,
}

/// Changes to a user, as typed; `None` keeps the value.
#[derive(Default)]
pub struct UserPatch {
    pub email: Option<String>,
    /// `Some(None)` removes the name.
    pub name: Option<Option<String>>,
    pub roles: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub disabled: Option<bool>,
    pub password: Option<SecretString>,
}

/// Why a user was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddUserError {
    #[error("{field} {problem}")]
    InvalidField { field: String, problem: String },
    #[error("a user with this email or username exists already")]
    Exists,
    #[error("the password could not be hashed")]
    Hash,
    #[error("the database did not do it")]
    Database(#[from] database::Error),
}

/// A validated new user.
pub struct CheckedUser {
    email: String,
    username: Option<String>,
    name: Option<String>,
    password: SecretString,
    cost: HashCost,
    roles: Vec<String>,
    scopes: Vec<String>,
    disabled: bool,
}

/// A validated change of a user.
pub struct CheckedPatch {
    change: UserUpdate,
    password: Option<SecretString>,
    cost: HashCost,
}

impl NewUser {
    /// Validates every field.
    ///
    /// # Errors
    /// Each invalid field and its problem.
    pub fn check(self, rules: PasswordRules) -> Result<CheckedUser, Vec<(String, String)>> {
        let mut problems = FieldErrors::default();
        let email = problems.check("email", normalize::email(&self.email));
        let username = self
            .username
            .and_then(|name| problems.check("username", normalize::username(&name)));
        let name = self
            .name
            .and_then(|name| problems.check("name", normalize::display_name(&name)));
        let roles = problems.check("roles", normalize::roles(&self.roles));
        let scopes = problems.check("scopes", normalize::scopes(&self.scopes));
        let judged = normalize::check_new_password(
            self.password.expose_secret(),
            rules.min_length,
            email.as_deref().unwrap_or_default(),
            username.as_deref(),
        );
        problems.check("password", judged);
        problems.into_result(CheckedUser {
            email: email.unwrap_or_default(),
            username,
            name,
            password: self.password,
            cost: rules.cost,
            roles: roles.unwrap_or_default(),
            scopes: scopes.unwrap_or_default(),
            disabled: self.disabled,
        })
    }
}

impl UserPatch {
    /// Validates every field to change.
    ///
    /// # Errors
    /// Each invalid field and its problem.
    pub fn check(
        self,
        user: &User,
        rules: PasswordRules,
    ) -> Result<CheckedPatch, Vec<(String, String)>> {
        let mut problems = FieldErrors::default();
        let change = UserUpdate {
            email: self
                .email
                .and_then(|email| problems.check("email", normalize::email(&email))),
            name: match &self.name {
                Some(Some(name)) => problems
                    .check("name", normalize::display_name(name))
                    .map(Some),
                Some(None) => Some(None),
                None => None,
            },
            roles: self
                .roles
                .and_then(|list| problems.check("roles", normalize::roles(&list))),
            scopes: self
                .scopes
                .and_then(|list| problems.check("scopes", normalize::scopes(&list))),
            disabled: self.disabled,
            password_hash: None,
        };
        if let Some(password) = &self.password {
            let judged = normalize::check_new_password(
                password.expose_secret(),
                rules.min_length,
                change.email.as_deref().unwrap_or(&user.email),
                user.username.as_deref(),
            );
            problems.check("password", judged);
        }
        problems.into_result(CheckedPatch {
            change,
            password: self.password,
            cost: rules.cost,
        })
    }
}

impl Accounts {
    /// Adds a user.
    ///
    /// # Errors
    /// The invalid field, an existing user, or a database error.
    pub async fn add_user(&self, new: NewUser, rules: PasswordRules) -> Result<User, AddUserError> {
        let new = new.check(rules).map_err(|fields| {
            let (field, problem) = fields.into_iter().next().unwrap_or_default();
            AddUserError::InvalidField { field, problem }
        })?;
        self.create_user(new)
            .await
            .map_err(|failure| match failure {
                AccountError::Rejected(it) if it.refusal == Refusal::UserExists => {
                    AddUserError::Exists
                }
                AccountError::Database(error) => AddUserError::Database(error),
                _ => AddUserError::Hash,
            })
    }

    /// Adds a validated user.
    ///
    /// # Errors
    /// `USER_EXISTS`, or a failed hash or database.
    pub async fn create_user(&self, new: CheckedUser) -> Result<User, AccountError> {
        let user = self.insert_user(new).await?;
        self.events
            .record(Event::new(EventKind::UserCreated).user(&user.id));
        Ok(user)
    }

    /// Finds a user by ID.
    ///
    /// # Errors
    /// The database does not respond.
    pub async fn user(&self, id: &str) -> Result<Option<User>, AccountError> {
        Ok(self.database.user(id).await?)
    }

    /// Lists users, newest first.
    ///
    /// # Errors
    /// The database is unavailable.
    pub async fn list_users(
        &self,
        limit: u32,
        after: Option<(Millis, String)>,
    ) -> Result<UserPage, AccountError> {
        Ok(self.database.list_users(limit, after).await?)
    }

    /// Validates and applies a change; see [`Accounts::apply_change`].
    ///
    /// # Errors
    /// `NOT_FOUND`, invalid fields, and the errors of [`Accounts::apply_change`].
    pub async fn change_user(
        &self,
        id: &str,
        patch: UserPatch,
        rules: PasswordRules,
    ) -> Result<User, AccountError> {
        let before = self.database.user(id).await?.ok_or(Refusal::NotFound)?;
        let patch = patch
            .check(&before, rules)
            .map_err(Rejection::invalid_fields)?;
        self.apply_change(id, patch).await
    }

    /// Changes a user. Disabling and a new password end all sessions; roles and scopes apply to
    /// active sessions at once.
    ///
    /// # Errors
    /// `NOT_FOUND`, `USER_EXISTS`, or an unavailable store or database: the change may then have
    /// been made in the database. The sessions follow it when it is repeated, or in the background.
    pub async fn apply_change(&self, id: &str, patch: CheckedPatch) -> Result<User, AccountError> {
        let mut change = patch.change;
        if let Some(password) = &patch.password {
            change.password_hash = Some(
                self.hash_password(password.expose_secret(), patch.cost)
                    .await?,
            );
        }
        self.write_change(id, change).await
    }

    async fn write_change(&self, id: &str, change: UserUpdate) -> Result<User, AccountError> {
        let changed = ChangeSummary::of(&change);
        let password = change.password_hash.clone();
        let password = password.map(|hash| NewPassword { hash, kept: None });
        let unapplied = self.begin_password_change(id, password);
        let now = clock::unix_millis();
        let user = match self.database.update_user(id, change, now).await? {
            UserUpdateOutcome::Changed(user) => user,
            UserUpdateOutcome::NotFound => {
                unapplied.complete();
                return Err(Refusal::NotFound.into());
            }
            UserUpdateOutcome::EmailTaken => {
                unapplied.complete();
                return Err(Refusal::UserExists.into());
            }
        };
        self.report_change(&user, changed);
        // Both are done even if one fails: sessions may end without the store.
        let enforced = self.apply_to_sessions(&user, changed).await;
        self.store.invalidate_profile(id).await?;
        enforced?;
        unapplied.complete();
        Ok(user)
    }

    /// Deletes a user after ending all sessions. The user is disabled first, so that a concurrent
    /// sign-in leaves no session behind.
    ///
    /// # Errors
    /// `NOT_FOUND`, or an unavailable store or database: the user then still exists, at most
    /// disabled, and deletion can be repeated.
    pub async fn remove_user(&self, id: &str) -> Result<(), AccountError> {
        let disabling = UserUpdate {
            disabled: Some(true),
            ..UserUpdate::default()
        };
        self.write_change(id, disabling).await?;
        self.database.delete_user(id, clock::unix_millis()).await?;
        self.events
            .record(Event::new(EventKind::UserRemoved).user(id));
        // A profile cached in the meantime. No session is left that could read it, and a repeated
        // call would find no user, so a store failure does not fail the deletion.
        if let Err(error) = self.store.invalidate_profile(id).await {
            tracing::warn!(%error, "the cached profile of a deleted user is left to expire");
        }
        Ok(())
    }

    fn report_change(&self, user: &User, changed: ChangeSummary) {
        let report = |kind| self.events.record(Event::new(kind).user(&user.id));
        if changed.identity {
            report(EventKind::UserChanged);
        }
        match changed.disabled {
            Some(true) => report(EventKind::UserDisabled),
            Some(false) => report(EventKind::UserEnabled),
            None => {}
        }
        if changed.password {
            report(EventKind::PasswordChanged);
        }
    }

    /// Applies the database's state to active sessions and API keys. Idle sessions end too, so that none
    /// remains merely expired after the change.
    async fn apply_to_sessions(
        &self,
        user: &User,
        changed: ChangeSummary,
    ) -> Result<(), AccountError> {
        let keys = match changed.disabled {
            Some(_) => self.sessions.update_api_keys_of(&user.id).await,
            None => Ok(()),
        };
        if user.disabled {
            self.end_user_sessions(&user.id, None, EndReason::UserDisabled, None, None)
                .await?;
        } else if changed.password {
            self.end_user_sessions(&user.id, None, EndReason::PasswordChanged, None, None)
                .await?;
        } else if changed.identity {
            self.sessions.update_identity(&user.id).await?;
        }
        Ok(keys?)
    }

    pub(super) async fn insert_user(&self, new: CheckedUser) -> Result<User, AccountError> {
        let new = database::NewUser {
            email: new.email,
            username: new.username,
            name: new.name,
            password_hash: Some(
                self.hash_password(new.password.expose_secret(), new.cost)
                    .await?,
            ),
            roles: new.roles,
            scopes: new.scopes,
            disabled: new.disabled,
        };
        let added = self.database.create_user(new, clock::unix_millis()).await?;
        added.ok_or(Refusal::UserExists.into())
    }

    pub(super) async fn hash_password(
        &self,
        password: &str,
        cost: HashCost,
    ) -> Result<String, AccountError> {
        let slot = self.passwords.acquire_slot().await?;
        Ok(self.passwords.hash(slot, password, cost).await?)
    }
}

/// What a change of a user affects.
#[derive(Debug, Clone, Copy)]
struct ChangeSummary {
    /// User data in sessions: email, name, roles, scopes.
    identity: bool,
    disabled: Option<bool>,
    password: bool,
}

impl ChangeSummary {
    fn of(change: &UserUpdate) -> ChangeSummary {
        ChangeSummary {
            identity: change.email.is_some()
                || change.name.is_some()
                || change.roles.is_some()
                || change.scopes.is_some(),
            disabled: change.disabled,
            password: change.password_hash.is_some(),
        }
    }
}
