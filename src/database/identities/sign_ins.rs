//! Sign-ins with identities.

use super::{AssertedIdentity, FirstSignIn, IdentitySignIn, LOCK, UserIdentity, read_identity};
use crate::auth::session::Millis;
use crate::database::sql::Transaction;
use crate::database::users::encode_list;
use crate::database::{Database, Error, NewUser, User};

/// Interval within which an unchanged identity is not written again, in milliseconds: a write waits
/// for the disk.
const REWRITE_INTERVAL_MS: Millis = 60_000;

impl Database {
    /// Finds the user of an identity, or creates or joins one, by the rules of the first sign-in.
    ///
    /// The roles and scopes of the identity become the asserted ones. Concurrent first sign-ins yield
    /// one user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn sign_in_identity(
        &self,
        asserted: &AssertedIdentity<'_>,
        rules: FirstSignIn,
        now: Millis,
    ) -> Result<IdentitySignIn, Error> {
        let rows = self.pool.read(self.identity_statement(asserted)).await?;
        if let Some(row) = rows.first() {
            let identity = read_identity(row)?;
            if let Some(known) = self.sign_in_known(identity, asserted, now).await? {
                return Ok(known);
            }
        }
        self.sign_in_unknown(asserted, rules, now).await
    }

    /// Signs in with a known identity; `None`: it was unlinked in the meantime.
    async fn sign_in_known(
        &self,
        identity: UserIdentity,
        asserted: &AssertedIdentity<'_>,
        now: Millis,
    ) -> Result<Option<IdentitySignIn>, Error> {
        if !is_outdated(&identity, asserted, now) {
            let user = self.user(&identity.user).await?;
            return Ok(user.map(|user| IdentitySignIn::Known(user, identity)));
        }
        // Not the lock of all identities: sign-ins of different users do not wait for each other.
        let mut transaction = self.pool.begin(&identity.user).await?;
        let known = self
            .update_identity(&mut transaction, asserted, now)
            .await?;
        transaction.commit().await?;
        Ok(known)
    }

    /// Writes what the provider asserts to a known identity; `None`: no user has it.
    async fn update_identity(
        &self,
        transaction: &mut Transaction,
        asserted: &AssertedIdentity<'_>,
        now: Millis,
    ) -> Result<Option<IdentitySignIn>, Error> {
        let Some(mut identity) = self.find_identity(transaction, asserted).await? else {
            return Ok(None);
        };
        let update = self.pool.sql(
            "UPDATE user_identities SET email = $1, roles = $2, scopes = $3, last_sign_in_at = $4 \
             WHERE id = $5 RETURNING id",
        );
        let update = update
            .bind(asserted.email)
            .bind(encode_list(asserted.roles))
            .bind(encode_list(asserted.scopes))
            .bind(now.cast_signed())
            .bind(&identity.id);
        if transaction.run(update).await?.is_empty() {
            return Ok(None);
        }
        if has_other_permissions(&identity, asserted) {
            self.mark_user_changed(transaction, &identity.user, now)
                .await?;
        }
        identity.email = asserted.email.map(str::to_owned);
        identity.roles = asserted.roles.to_vec();
        identity.scopes = asserted.scopes.to_vec();
        identity.last_sign_in_at = Some(now);
        let user = self.find_user_by(transaction, "id", &identity.user).await?;
        Ok(user.map(|user| IdentitySignIn::Known(user, identity)))
    }

    /// The first sign-in with an identity, unless another one was first.
    async fn sign_in_unknown(
        &self,
        asserted: &AssertedIdentity<'_>,
        rules: FirstSignIn,
        now: Millis,
    ) -> Result<IdentitySignIn, Error> {
        let mut transaction = self.pool.begin(LOCK).await?;
        let outcome = match self
            .update_identity(&mut transaction, asserted, now)
            .await?
        {
            Some(known) => known,
            None => {
                self.first_sign_in(&mut transaction, asserted, rules, now)
                    .await?
            }
        };
        transaction.commit().await?;
        Ok(outcome)
    }

    async fn first_sign_in(
        &self,
        transaction: &mut Transaction,
        asserted: &AssertedIdentity<'_>,
        rules: FirstSignIn,
        now: Millis,
    ) -> Result<IdentitySignIn, Error> {
        let owner = match asserted.email {
            Some(email) => self.find_user_by(transaction, "email", email).await?,
            None => None,
        };
        let Some(user) = owner else {
            return match rules.create {
                true => self.create_for_identity(transaction, asserted, now).await,
                false => Ok(IdentitySignIn::Unknown),
            };
        };
        if !rules.link_by_email || !self.may_join(transaction, &user, asserted).await? {
            return Ok(IdentitySignIn::EmailTaken);
        }
        let identity = self
            .insert_identity(transaction, &user.id, asserted, Some(now), now)
            .await?;
        Ok(IdentitySignIn::Joined(user, identity))
    }

    /// Whether an identity may join the user who has its email: never a disabled user, nor one who
    /// has an identity of this provider. That one would be another account at the provider that has
    /// got the email.
    async fn may_join(
        &self,
        transaction: &mut Transaction,
        user: &User,
        asserted: &AssertedIdentity<'_>,
    ) -> Result<bool, Error> {
        if user.disabled {
            return Ok(false);
        }
        let linked = transaction.run(self.identities_statement(&user.id)).await?;
        for row in &linked {
            if read_identity(row)?.provider == asserted.provider {
                return Ok(false);
            }
        }
        Ok(linked.len() < super::links::MAX_IDENTITIES)
    }

    async fn create_for_identity(
        &self,
        transaction: &mut Transaction,
        asserted: &AssertedIdentity<'_>,
        now: Millis,
    ) -> Result<IdentitySignIn, Error> {
        let user = NewUser {
            email: asserted.email.unwrap_or_default().to_owned(),
            username: None,
            name: asserted.name.map(str::to_owned),
            password_hash: None,
            roles: Vec::new(),
            scopes: Vec::new(),
            disabled: false,
        };
        let user = user.into_user(now);
        // A registration does not take the lock: the constraint on emails decides.
        let inserted = transaction.run(self.insert_user_statement(&user)).await?;
        if inserted.is_empty() {
            return Ok(IdentitySignIn::EmailTaken);
        }
        let identity = self
            .insert_identity(transaction, &user.id, asserted, Some(now), now)
            .await?;
        Ok(IdentitySignIn::Created(user, identity))
    }

    /// Replaces the mapped roles and scopes of an identity, after a recheck; returns the user if they
    /// have changed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn set_identity_permissions(
        &self,
        asserted: &AssertedIdentity<'_>,
        now: Millis,
    ) -> Result<Option<String>, Error> {
        let mut transaction = self.pool.begin(LOCK).await?;
        let identity = self.find_identity(&mut transaction, asserted).await?;
        let changed = identity.filter(|identity| has_other_permissions(identity, asserted));
        if let Some(identity) = &changed {
            let update = self
                .pool
                .sql("UPDATE user_identities SET roles = $1, scopes = $2 WHERE id = $3")
                .bind(encode_list(asserted.roles))
                .bind(encode_list(asserted.scopes))
                .bind(&identity.id);
            transaction.run(update).await?;
            self.mark_user_changed(&mut transaction, &identity.user, now)
                .await?;
        }
        transaction.commit().await?;
        Ok(changed.map(|identity| identity.user))
    }
}

/// Whether a sign-in has something to write.
fn is_outdated(identity: &UserIdentity, asserted: &AssertedIdentity<'_>, now: Millis) -> bool {
    let is_old = |last: Millis| last.saturating_add(REWRITE_INTERVAL_MS) < now;
    identity.email.as_deref() != asserted.email
        || has_other_permissions(identity, asserted)
        || identity.last_sign_in_at.is_none_or(is_old)
}

fn has_other_permissions(identity: &UserIdentity, asserted: &AssertedIdentity<'_>) -> bool {
    identity.roles != asserted.roles || identity.scopes != asserted.scopes
}
