//! Identities that are linked to and unlinked from users.

use super::{AssertedIdentity, LOCK, LinkOutcome, UnlinkOutcome, UserIdentity, WaysToSignIn};
use super::{User, read_identity};
use crate::auth::session::Millis;
use crate::database::sql::Transaction;
use crate::database::{Database, Error};

/// Number of identities that a user may have.
pub(super) const MAX_IDENTITIES: usize = 32;

impl Database {
    /// Links an identity to a user, if no other user has it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn link_identity(
        &self,
        user: &str,
        asserted: &AssertedIdentity<'_>,
        now: Millis,
    ) -> Result<LinkOutcome, Error> {
        let mut transaction = self.pool.begin(LOCK).await?;
        let owner = self.find_user_by(&mut transaction, "id", user).await?;
        if owner.is_none() {
            return finish(transaction, LinkOutcome::NoUser).await;
        }
        if let Some(identity) = self.find_identity(&mut transaction, asserted).await? {
            let outcome = match identity.user == user {
                true => LinkOutcome::AlreadyLinked(identity),
                false => LinkOutcome::Taken,
            };
            return finish(transaction, outcome).await;
        }
        let linked = transaction.run(self.identities_statement(user)).await?;
        if linked.len() >= MAX_IDENTITIES {
            return finish(transaction, LinkOutcome::TooMany).await;
        }
        let inserted = self
            .insert_identity(&mut transaction, user, asserted, None, now)
            .await;
        match inserted {
            Ok(identity) => finish(transaction, LinkOutcome::Linked(identity)).await,
            // A deletion of users does not take the lock.
            Err(Error::Failed(sqlx::Error::Database(error)))
                if error.is_foreign_key_violation() =>
            {
                Ok(LinkOutcome::NoUser)
            }
            Err(error) => Err(error),
        }
    }

    /// Unlinks an identity from its user, unless it is the last way to sign in.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unlink_identity(
        &self,
        user: &str,
        id: &str,
        ways: WaysToSignIn<'_>,
        now: Millis,
    ) -> Result<UnlinkOutcome, Error> {
        let mut transaction = self.pool.begin(LOCK).await?;
        let Some(owner) = self.find_user_by(&mut transaction, "id", user).await? else {
            return finish(transaction, UnlinkOutcome::NotFound).await;
        };
        let linked = transaction.run(self.identities_statement(user)).await?;
        let linked = linked.iter().map(read_identity).collect::<Result<_, _>>()?;
        let outcome = ways.judge_unlinking(&owner, linked, id);
        if let UnlinkOutcome::Unlinked(_) = outcome {
            let delete = self.pool.sql("DELETE FROM user_identities WHERE id = $1");
            transaction.run(delete.bind(id)).await?;
            self.mark_user_changed(&mut transaction, user, now).await?;
        }
        finish(transaction, outcome).await
    }
}

impl WaysToSignIn<'_> {
    /// The outcome of unlinking one of the user's identities.
    pub fn judge_unlinking(
        self,
        user: &User,
        linked: Vec<UserIdentity>,
        id: &str,
    ) -> UnlinkOutcome {
        let (unlinked, others): (Vec<_>, Vec<_>) = linked.into_iter().partition(|it| it.id == id);
        match unlinked.into_iter().next() {
            None => UnlinkOutcome::NotFound,
            Some(identity) if self.can_sign_in(user, &others) => {
                UnlinkOutcome::Unlinked(Box::new(identity))
            }
            Some(_) => UnlinkOutcome::Last,
        }
    }

    /// Whether a user with these identities has a way to sign in.
    fn can_sign_in(self, user: &User, identities: &[UserIdentity]) -> bool {
        let has_password = self.password && user.password_hash.is_some();
        let is_usable = |identity: &UserIdentity| {
            let way = (&*identity.provider, &*identity.issuer);
            self.providers.contains(&way)
        };
        has_password || identities.iter().any(is_usable)
    }
}

async fn finish<T>(transaction: Transaction, outcome: T) -> Result<T, Error> {
    transaction.commit().await?;
    Ok(outcome)
}
