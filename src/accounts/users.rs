//! What an operator does to users: add, list, change.

use secrecy::{ExposeSecret, SecretString};

use crate::directory::{self, Change, Roster, User};
use crate::events::{Event, Kind};
use crate::refusal::Refusal;
use crate::session::{EndReason, Millis};

use super::{Accounts, Failure, names};

/// A user to be, as typed.
pub struct NewUser {
    pub email: String,
    pub username: Option<String>,
    pub name: Option<String>,
    pub password: SecretString,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
}

/// What to change of a user, as typed; `None` leaves it as it is.
#[derive(Default)]
pub struct UserPatch {
    /// `Some(None)` takes the name away.
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
    Invalid { field: String, problem: String },
    #[error("a user with this email or username exists already")]
    Exists,
    #[error("the password could not be hashed")]
    Hash,
    #[error("the database did not do it")]
    Directory(#[from] directory::Error),
}

impl Accounts {
    /// Adds a user.
    ///
    /// # Errors
    /// Says which field is wrong, that the user exists, or that the database failed.
    pub async fn add_user(
        &self,
        new: NewUser,
        password_min_length: usize,
    ) -> Result<User, AddUserError> {
        let user =
            self.insert_user(new, password_min_length)
                .await
                .map_err(|failure| match failure {
                    Failure::Invalid(fields) => {
                        let (field, problem) = fields.into_iter().next().unwrap_or_default();
                        AddUserError::Invalid { field, problem }
                    }
                    Failure::Refused(_) => AddUserError::Exists,
                    Failure::Directory(error) => AddUserError::Directory(error),
                    _ => AddUserError::Hash,
                })?;
        self.events
            .record(Event::new(Kind::UserCreated).user(&user.id));
        Ok(user)
    }

    /// Lists users, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list_users(
        &self,
        limit: u32,
        after: Option<(Millis, String)>,
    ) -> Result<Roster, directory::Error> {
        self.directory.users(limit, after).await
    }

    /// Changes a user. Disabling and a new password end all sessions; roles and scopes are in force
    /// on the live ones at once.
    ///
    /// # Errors
    /// `NOT_FOUND`, wrong fields, or store and database without an answer: the change may then have
    /// been made in the database; making it again brings the sessions in line.
    pub async fn change_user(
        &self,
        id: &str,
        patch: UserPatch,
        password_min_length: usize,
    ) -> Result<User, Failure> {
        let before = self.directory.user(id).await?.ok_or(Refusal::NotFound)?;
        let change = self.checked(&before, &patch, password_min_length).await?;
        let now = unix_now();
        let user = self
            .directory
            .change(id, change, now)
            .await?
            .ok_or(Refusal::NotFound)?;
        self.report(&user, &patch);
        self.enforce(&user, &patch).await?;
        Ok(user)
    }

    async fn checked(
        &self,
        user: &User,
        patch: &UserPatch,
        password_min_length: usize,
    ) -> Result<Change, Failure> {
        let mut problems = Problems::default();
        let change = Change {
            name: match &patch.name {
                Some(Some(name)) => problems.take("name", names::display_name(name)).map(Some),
                Some(None) => Some(None),
                None => None,
            },
            roles: patch
                .roles
                .as_ref()
                .and_then(|list| problems.take("roles", names::roles(list))),
            scopes: patch
                .scopes
                .as_ref()
                .and_then(|list| problems.take("scopes", names::scopes(list))),
            disabled: patch.disabled,
            password_hash: None,
        };
        let Some(password) = &patch.password else {
            return problems.none().map(|()| change);
        };
        let password = password.expose_secret();
        let username = user.username.as_deref();
        let judged = names::new_password(password, password_min_length, &user.email, username);
        problems.take("password", judged);
        problems.none()?;
        Ok(Change {
            password_hash: Some(self.hash(password).await?),
            ..change
        })
    }

    fn report(&self, user: &User, patch: &UserPatch) {
        let report = |kind| self.events.record(Event::new(kind).user(&user.id));
        if patch.name.is_some() || patch.roles.is_some() || patch.scopes.is_some() {
            report(Kind::UserChanged);
        }
        match patch.disabled {
            Some(true) => report(Kind::UserDisabled),
            Some(false) => report(Kind::UserEnabled),
            None => {}
        }
        if patch.password.is_some() {
            report(Kind::PasswordChanged);
        }
    }

    /// Brings live sessions in line with what the database now says. Idle ones end as well: for a
    /// changed person none of the old ones is merely expired.
    async fn enforce(&self, user: &User, patch: &UserPatch) -> Result<(), Failure> {
        if user.disabled {
            self.end_sessions_of(&user.id, None, EndReason::UserDisabled, None, None)
                .await?;
        } else if patch.password.is_some() {
            self.end_sessions_of(&user.id, None, EndReason::PasswordChanged, None, None)
                .await?;
        } else if patch.name.is_some() || patch.roles.is_some() || patch.scopes.is_some() {
            self.apply_identity(user).await?;
        }
        Ok(())
    }

    /// Writes what the user is into all live sessions.
    pub(super) async fn apply_identity(&self, user: &User) -> Result<(), Failure> {
        self.store
            .set_identity(
                &user.id,
                &user.email,
                user.name.as_deref(),
                &user.roles,
                &user.scopes,
            )
            .await?;
        Ok(())
    }

    pub(super) async fn insert_user(
        &self,
        new: NewUser,
        password_min_length: usize,
    ) -> Result<User, Failure> {
        let mut problems = Problems::default();
        let email = problems.take("email", names::email(&new.email));
        let username = new
            .username
            .and_then(|name| problems.take("username", names::username(&name)));
        let name = new
            .name
            .and_then(|name| problems.take("name", names::display_name(&name)));
        let roles = problems.take("roles", names::roles(&new.roles));
        let scopes = problems.take("scopes", names::scopes(&new.scopes));
        let password = new.password.expose_secret();
        let judged = names::new_password(
            password,
            password_min_length,
            email.as_deref().unwrap_or_default(),
            username.as_deref(),
        );
        problems.take("password", judged);
        problems.none()?;
        let new = directory::NewUser {
            email: email.unwrap_or_default(),
            username,
            name,
            password_hash: self.hash(password).await?,
            roles: roles.unwrap_or_default(),
            scopes: scopes.unwrap_or_default(),
        };
        let added = self.directory.add(new, unix_now()).await?;
        added.ok_or(Refusal::UserExists.into())
    }

    async fn hash(&self, password: &str) -> Result<String, Failure> {
        let turn = self.passwords.turn().await?;
        Ok(self.passwords.hash(turn, password).await?)
    }
}

/// Everything that is wrong with what was typed, told together.
#[derive(Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn take<T, E: Into<String>>(&mut self, field: &str, judged: Result<T, E>) -> Option<T> {
        judged
            .map_err(|problem| self.0.push((field.to_owned(), problem.into())))
            .ok()
    }

    fn none(&mut self) -> Result<(), Failure> {
        match std::mem::take(&mut self.0) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Failure::Invalid(problems)),
        }
    }
}

/// The wall clock; it dates rows in the database and decides nothing.
fn unix_now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}
