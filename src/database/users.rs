//! User rows and the statements about them.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::sql::{Row, Statement};
use super::{Database, Error, api_keys};
use crate::auth::api_key::ApiKeyOwner;
use crate::auth::session::Millis;

pub(super) const COLUMNS: &str = "SELECT id, email, username, name, password_hash, roles, scopes, disabled, \
                       created_at, updated_at FROM users ";

/// A user who can sign in.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// A UUID.
    pub id: String,
    /// Canonical: ASCII, lower case. Empty if no provider has verified one.
    pub email: String,
    /// As the user wrote it; unique regardless of case.
    pub username: Option<String>,
    pub name: Option<String>,
    /// Argon2id in the PHC string format; `None`: the user cannot sign in with a password.
    pub password_hash: Option<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub disabled: bool,
    pub created_at: Millis,
    /// Increases with every change, whatever the gateways' clocks show, and so orders the changes.
    pub updated_at: Millis,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("email", &self.email)
            .field("roles", &self.roles)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

/// A new user, already validated and with a hashed password.
pub struct NewUser {
    /// Canonical, or empty.
    pub email: String,
    pub username: Option<String>,
    pub name: Option<String>,
    pub password_hash: Option<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub disabled: bool,
}

impl NewUser {
    pub(super) fn into_user(self, now: Millis) -> User {
        User {
            id: Uuid::new_v4().to_string(),
            email: self.email,
            username: self.username,
            name: self.name,
            password_hash: self.password_hash,
            roles: self.roles,
            scopes: self.scopes,
            disabled: self.disabled,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A partial change of a user; `None` leaves a field as it is.
#[derive(Default)]
pub struct UserUpdate {
    /// Canonical.
    pub email: Option<String>,
    /// `Some(None)` removes the name.
    pub name: Option<Option<String>>,
    pub roles: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub disabled: Option<bool>,
    pub password_hash: Option<String>,
}

/// Outcome of [`Database::update_user`].
#[derive(Debug)]
pub enum UserUpdateOutcome {
    Changed(User),
    NotFound,
    /// Another user has that email.
    EmailTaken,
}

/// A page of users, newest first.
#[derive(Debug)]
pub struct UserPage {
    pub users: Vec<User>,
    /// Number of all users.
    pub total: u64,
    /// Start of the next page, if there is one.
    pub next: Option<(Millis, String)>,
}

impl Database {
    /// Adds a user. `None`: the email or the username is taken.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_user(&self, new: NewUser, now: Millis) -> Result<Option<User>, Error> {
        let user = new.into_user(now);
        let insert = self.insert_user_statement(&user);
        let inserted = self.pool.write(insert).await?;
        Ok((!inserted.is_empty()).then_some(user))
    }

    /// The statement that adds a user; it returns no row if the email or the username is taken.
    pub(super) fn insert_user_statement(&self, user: &User) -> Statement {
        self.pool
            .sql(
                "INSERT INTO users (id, email, username, username_key, name, password_hash, roles, \
                 scopes, disabled, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                 ON CONFLICT DO NOTHING RETURNING id",
            )
            .bind(&user.id)
            .bind(encode_email(user))
            .bind(&user.username)
            .bind(user.username.as_ref().map(|name| name.to_ascii_lowercase()))
            .bind(&user.name)
            .bind(user.password_hash.as_deref().unwrap_or_default())
            .bind(encode_list(&user.roles))
            .bind(encode_list(&user.scopes))
            .bind(user.disabled)
            .bind(user.created_at.cast_signed())
            .bind(user.updated_at.cast_signed())
    }

    /// Finds a user by id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user(&self, id: &str) -> Result<Option<User>, Error> {
        self.find_user("WHERE id = $1", id).await
    }

    /// Finds a user by canonical email.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>, Error> {
        self.find_user("WHERE email = $1", email).await
    }

    /// Finds a user by username, regardless of case.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_by_username(&self, username: &str) -> Result<Option<User>, Error> {
        self.find_user("WHERE username_key = $1", &username.to_ascii_lowercase())
            .await
    }

    async fn find_user(&self, condition: &'static str, value: &str) -> Result<Option<User>, Error> {
        let select = self
            .pool
            .sql(AssertSqlSafe(format!("{COLUMNS}{condition}")));
        let rows = self.pool.read(select.bind(value)).await?;
        rows.first().map(read_user).transpose()
    }

    /// Lists users, newest first, from `after` on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list_users(
        &self,
        limit: u32,
        after: Option<(Millis, String)>,
    ) -> Result<UserPage, Error> {
        let (time, id) = after.unwrap_or((i64::MAX.cast_unsigned(), String::new()));
        let select = self.pool.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE created_at < $1 OR (created_at = $1 AND id < $2) \
             ORDER BY created_at DESC, id DESC LIMIT $3"
        )));
        let select = select.bind(time.cast_signed()).bind(id);
        let rows = self.pool.read(select.bind(i64::from(limit) + 1)).await?;
        let count = self.pool.sql("SELECT COUNT(*) FROM users");
        let count = self.pool.read(count).await?;
        let total: i64 = count.first().map_or(Ok(0), |row| row.get(0))?;
        let has_more = rows.len() > limit as usize;
        let users = rows
            .iter()
            .take(limit as usize)
            .map(read_user)
            .collect::<Result<Vec<User>, Error>>()?;
        let next = users
            .last()
            .filter(|_| has_more)
            .map(|last| (last.created_at, last.id.clone()));
        Ok(UserPage {
            users,
            total: total.cast_unsigned(),
            next,
        })
    }

    /// Changes a user, in one statement.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_user(
        &self,
        id: &str,
        change: UserUpdate,
        now: Millis,
    ) -> Result<UserUpdateOutcome, Error> {
        let update = self
            .pool
            .sql(
                "UPDATE users SET \
             name = CASE WHEN $1 THEN $2 ELSE name END, \
             roles = COALESCE($3, roles), scopes = COALESCE($4, scopes), \
             disabled = COALESCE($5, disabled), \
             password_hash = COALESCE($6, password_hash), \
             email = COALESCE($7, email), \
             updated_at = CASE WHEN updated_at < $8 THEN $8 ELSE updated_at + 1 END WHERE id = $9",
            )
            .bind(change.name.is_some())
            .bind(change.name.flatten())
            .bind(change.roles.as_deref().map(encode_list))
            .bind(change.scopes.as_deref().map(encode_list))
            .bind(change.disabled)
            .bind(change.password_hash)
            .bind(change.email)
            .bind(now.cast_signed())
            .bind(id);
        match self.pool.write(update).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Ok(UserUpdateOutcome::EmailTaken);
            }
            Err(error) => return Err(error.into()),
        }
        let changed = self.user(id).await?;
        Ok(changed.map_or(UserUpdateOutcome::NotFound, UserUpdateOutcome::Changed))
    }

    /// Deletes a user, if it exists, with all rows that refer to it; its API keys remain, revoked.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_user(&self, id: &str, now: Millis) -> Result<(), Error> {
        let owner = ApiKeyOwner::User(id.to_owned());
        let mut transaction = self.pool.begin(&api_keys::lock(&owner)).await?;
        let revoke = self.revoke_all_api_keys_statement(&owner, now);
        transaction.run(revoke).await?;
        let delete = self.pool.sql("DELETE FROM users WHERE id = $1");
        transaction.run(delete.bind(id)).await?;
        Ok(transaction.commit().await?)
    }
}

pub(super) fn encode_list(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// The column's value: it is unique and not null, so a user without email has the ID there, which no
/// email equals.
fn encode_email(user: &User) -> &str {
    match user.email.is_empty() {
        true => &user.id,
        false => &user.email,
    }
}

/// Decodes a row with the columns of [`COLUMNS`].
pub(super) fn read_user(row: &Row) -> Result<User, Error> {
    let id: String = row.get("id")?;
    let list = |column: &str| -> Result<Vec<String>, Error> {
        let text: String = row.get(column)?;
        serde_json::from_str(&text).map_err(|_| Error::UnreadableUser(id.clone()))
    };
    let time = |column: &str| -> Result<Millis, Error> {
        let time: i64 = row.get(column)?;
        Ok(time.cast_unsigned())
    };
    Ok(User {
        email: Some(row.get::<String, _>("email")?)
            .filter(|email| *email != id)
            .unwrap_or_default(),
        username: row.get("username")?,
        name: row.get("name")?,
        password_hash: Some(row.get::<String, _>("password_hash")?).filter(|hash| !hash.is_empty()),
        roles: list("roles")?,
        scopes: list("scopes")?,
        disabled: row.get("disabled")?,
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
        id,
    })
}
