//! Identities at providers with which users of the database sign in.
//!
//! An identity is (provider name, issuer, subject): two providers never share one, even where they
//! have the same issuer, and neither a renamed provider nor a name that moves to another issuer
//! inherits any. Changes of identities exclude each other by one lock; a sign-in with a known identity
//! takes none.

mod links;
mod sign_ins;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::sql::{Row, Statement, Transaction};
use super::users::{encode_list, read_user};
use super::{Database, Error, User};
use crate::auth::session::{Millis, Session};

const COLUMNS: &str = "SELECT id, user_id, provider, issuer, subject, email, roles, scopes, \
                       created_at, last_sign_in_at FROM user_identities ";
/// Lock of the transactions that add or remove identities. On SQLite, every write excludes others.
const LOCK: &str = "user_identities";

/// An identity of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIdentity {
    /// A UUID.
    pub id: String,
    /// The user's ID.
    pub user: String,
    /// The provider's name in the configuration.
    pub provider: String,
    pub issuer: String,
    pub subject: String,
    /// The verified email of the latest sign-in, canonical.
    pub email: Option<String>,
    /// Mapped from the claims of the latest sign-in or recheck; in force in this identity's sessions.
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub created_at: Millis,
    /// At most a minute behind.
    pub last_sign_in_at: Option<Millis>,
}

impl UserIdentity {
    /// Whether a session was opened by a sign-in with this identity.
    pub fn is_of(&self, session: &Session) -> bool {
        session.provider.as_ref().is_some_and(|sign_in| {
            *sign_in.provider == *self.provider && sign_in.subject == self.subject
        })
    }

    fn has_permissions(&self) -> bool {
        !(self.roles.is_empty() && self.scopes.is_empty())
    }
}

impl User {
    /// The same user with the roles and scopes of an identity in addition, as in its sessions.
    #[must_use]
    pub fn with_permissions_of(mut self, identity: &UserIdentity) -> User {
        add_missing(&mut self.roles, &identity.roles);
        add_missing(&mut self.scopes, &identity.scopes);
        self
    }

    /// The same user as in a session of theirs.
    #[must_use]
    pub fn in_session(self, session: &Session, identities: &[UserIdentity]) -> User {
        match identities.iter().find(|identity| identity.is_of(session)) {
            Some(identity) => self.with_permissions_of(identity),
            None => self,
        }
    }
}

fn add_missing(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// An identity as a provider asserts it at a sign-in.
#[derive(Debug, Clone, Copy)]
pub struct AssertedIdentity<'a> {
    pub provider: &'a str,
    pub issuer: &'a str,
    pub subject: &'a str,
    /// Verified and canonical; an email that is not verified is never stored.
    pub email: Option<&'a str>,
    pub name: Option<&'a str>,
    pub roles: &'a [String],
    pub scopes: &'a [String],
}

/// What the first sign-in with an identity may do.
#[derive(Debug, Clone, Copy)]
pub struct FirstSignIn {
    /// Create a user for it.
    pub create: bool,
    /// Join the user who has its verified email.
    pub link_by_email: bool,
}

/// Outcome of [`Database::sign_in_identity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySignIn {
    /// The identity was linked before.
    Known(User, UserIdentity),
    /// A user was created.
    Created(User, UserIdentity),
    /// The identity has joined the user who has its email.
    Joined(User, UserIdentity),
    /// No user has the identity, and none may be created.
    Unknown,
    /// A user who cannot be joined has the email.
    EmailTaken,
}

/// Outcome of [`Database::link_identity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOutcome {
    Linked(UserIdentity),
    /// The user has had this identity before.
    AlreadyLinked(UserIdentity),
    /// Another user has this identity.
    Taken,
    /// The user has as many identities as are allowed.
    TooMany,
    /// The user does not exist.
    NoUser,
}

/// The ways to sign in that the configuration offers.
#[derive(Debug, Clone, Copy)]
pub struct WaysToSignIn<'a> {
    pub password: bool,
    /// Names and issuers of the providers whose users are in the database.
    pub providers: &'a [(&'a str, &'a str)],
}

/// Outcome of [`Database::unlink_identity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnlinkOutcome {
    Unlinked(Box<UserIdentity>),
    NotFound,
    /// It is the user's last way to sign in.
    Last,
}

impl Database {
    /// Reads a user's identities, the latest used first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn identities_of(&self, user: &str) -> Result<Vec<UserIdentity>, Error> {
        let rows = self.pool.read(self.identities_statement(user)).await?;
        rows.iter().map(read_identity).collect()
    }

    /// Reads the user of a session as the session has them: with the roles and scopes of the identity
    /// that opened it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_in_session(&self, session: &Session) -> Result<Option<User>, Error> {
        let Some(user) = self.user(&session.user).await? else {
            return Ok(None);
        };
        if session.provider.is_none() {
            return Ok(Some(user));
        }
        let identities = self.identities_of(&user.id).await?;
        Ok(Some(user.in_session(session, &identities)))
    }

    /// Copies a user's email, name, roles and scopes to the user's active sessions, with the roles and
    /// scopes of the identity that opened each.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_session_identity(&self, user: &str) -> Result<(), Error> {
        // Of concurrent changes, each writes what it reads here, and the last one reads all of them.
        let mut transaction = self.pool.begin(user).await?;
        let Some(row) = self.find_user_by(&mut transaction, "id", user).await? else {
            return Ok(transaction.commit().await?);
        };
        let identities = transaction.run(self.identities_statement(user)).await?;
        transaction.run(self.copy_user_statement(&row)).await?;
        // The latest used identity is first, and wins.
        for identity in identities.iter().rev() {
            let identity = read_identity(identity)?;
            if identity.has_permissions() {
                let copy = self.copy_permissions_statement(row.clone(), &identity);
                transaction.run(copy).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    fn copy_user_statement(&self, user: &User) -> Statement {
        self.pool
            .sql(
                "UPDATE user_sessions SET email = $1, name = $2, roles = $3, scopes = $4, \
                 revision = revision + 1 WHERE user_id = $5 AND is_active",
            )
            .bind(&user.email)
            .bind(&user.name)
            .bind(encode_list(&user.roles))
            .bind(encode_list(&user.scopes))
            .bind(&user.id)
    }

    fn copy_permissions_statement(&self, user: User, identity: &UserIdentity) -> Statement {
        let user = user.with_permissions_of(identity);
        self.pool
            .sql(
                "UPDATE user_sessions SET roles = $1, scopes = $2 WHERE user_id = $3 \
                 AND provider = $4 AND provider_subject = $5 AND is_active",
            )
            .bind(encode_list(&user.roles))
            .bind(encode_list(&user.scopes))
            .bind(&user.id)
            .bind(&identity.provider)
            .bind(&identity.subject)
    }

    fn identities_statement(&self, user: &str) -> Statement {
        let text = format!(
            "{COLUMNS}WHERE user_id = $1 \
             ORDER BY COALESCE(last_sign_in_at, 0) DESC, created_at DESC, id"
        );
        self.pool.sql(AssertSqlSafe(text)).bind(user)
    }

    fn identity_statement(&self, asserted: &AssertedIdentity<'_>) -> Statement {
        let text = format!("{COLUMNS}WHERE provider = $1 AND issuer = $2 AND subject = $3");
        self.pool
            .sql(AssertSqlSafe(text))
            .bind(asserted.provider)
            .bind(asserted.issuer)
            .bind(asserted.subject)
    }

    fn user_statement(&self, condition: &str, value: &str) -> Statement {
        let text = format!("{}WHERE {condition} = $1", super::users::COLUMNS);
        self.pool.sql(AssertSqlSafe(text)).bind(value)
    }

    async fn find_identity(
        &self,
        transaction: &mut Transaction,
        asserted: &AssertedIdentity<'_>,
    ) -> Result<Option<UserIdentity>, Error> {
        let rows = transaction.run(self.identity_statement(asserted)).await?;
        rows.first().map(read_identity).transpose()
    }

    async fn find_user_by(
        &self,
        transaction: &mut Transaction,
        condition: &'static str,
        value: &str,
    ) -> Result<Option<User>, Error> {
        let rows = transaction.run(self.user_statement(condition, value));
        rows.await?.first().map(read_user).transpose()
    }

    /// Adds an identity to a user, within a transaction that holds [`LOCK`].
    async fn insert_identity(
        &self,
        transaction: &mut Transaction,
        user: &str,
        asserted: &AssertedIdentity<'_>,
        signed_in_at: Option<Millis>,
        now: Millis,
    ) -> Result<UserIdentity, Error> {
        let identity = UserIdentity {
            id: Uuid::new_v4().to_string(),
            user: user.to_owned(),
            provider: asserted.provider.to_owned(),
            issuer: asserted.issuer.to_owned(),
            subject: asserted.subject.to_owned(),
            email: asserted.email.map(str::to_owned),
            roles: asserted.roles.to_vec(),
            scopes: asserted.scopes.to_vec(),
            created_at: now,
            last_sign_in_at: signed_in_at,
        };
        let insert = self
            .pool
            .sql(
                "INSERT INTO user_identities (id, user_id, provider, issuer, subject, email, roles, \
                 scopes, created_at, last_sign_in_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(&identity.id)
            .bind(&identity.user)
            .bind(&identity.provider)
            .bind(&identity.issuer)
            .bind(&identity.subject)
            .bind(&identity.email)
            .bind(encode_list(&identity.roles))
            .bind(encode_list(&identity.scopes))
            .bind(now.cast_signed())
            .bind(signed_in_at.map(Millis::cast_signed));
        transaction.run(insert).await?;
        Ok(identity)
    }

    /// Marks a user as changed: the version of the sessions' copy of roles and scopes increases.
    async fn mark_user_changed(
        &self,
        transaction: &mut Transaction,
        user: &str,
        now: Millis,
    ) -> Result<(), Error> {
        let update = self.pool.sql(
            "UPDATE users SET updated_at = CASE WHEN updated_at < $1 THEN $1 \
             ELSE updated_at + 1 END WHERE id = $2",
        );
        transaction
            .run(update.bind(now.cast_signed()).bind(user))
            .await?;
        Ok(())
    }
}

fn read_identity(row: &Row) -> Result<UserIdentity, Error> {
    let user: String = row.get("user_id")?;
    let list = |column: &str| -> Result<Vec<String>, Error> {
        let text: String = row.get(column)?;
        serde_json::from_str(&text).map_err(|_| Error::UnreadableUser(user.clone()))
    };
    Ok(UserIdentity {
        id: row.get("id")?,
        provider: row.get("provider")?,
        issuer: row.get("issuer")?,
        subject: row.get("subject")?,
        email: row.get("email")?,
        roles: list("roles")?,
        scopes: list("scopes")?,
        created_at: row.timestamp("created_at")?,
        last_sign_in_at: row
            .get::<Option<i64>, _>("last_sign_in_at")?
            .map(i64::cast_unsigned),
        user,
    })
}
