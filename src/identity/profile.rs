//! Changes that users make to their own account.

use std::net::IpAddr;

use secrecy::{ExposeSecret, SecretString};

use super::sign_in::PasswordCheck;
use super::throttle::FailureCounters;
use super::user_changes::{NewPassword, UserChange};
use super::{AccountError, Accounts, address_key, normalize, picture};
use crate::auth::session::{EndReason, SessionId};
use crate::clock;
use crate::database::{Avatar, AvatarInfo, User};
use crate::events::{Event, EventKind};
use crate::limits::Decision;
use crate::rejection::{Refusal, Rejection};
use crate::settings::{HashCost, PasswordRules, Reloadable};

/// A password change by its owner, as typed.
pub struct PasswordChange {
    pub current: SecretString,
    pub new: SecretString,
}

impl PasswordChange {
    /// Validates both passwords.
    ///
    /// # Errors
    /// Each invalid field and its problem.
    pub fn check(&self, user: &User, rules: PasswordRules) -> Result<(), Vec<(String, String)>> {
        let mut problems = super::FieldErrors::default();
        let current = normalize::check_sign_in_password(self.current.expose_secret());
        problems.check("current_password", current);
        let new = normalize::check_new_password(
            self.new.expose_secret(),
            rules.min_length,
            &user.email,
            user.username.as_deref(),
        );
        problems.check("new_password", new);
        problems.into_result(())
    }
}

impl Accounts {
    /// Changes the caller's own password. The current session and its tokens stay valid; all other
    /// sessions end. A wrong current password counts as a failed sign-in; `limits` is as in
    /// [`Accounts::sign_in`].
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS`, invalid fields, a limit, or an unavailable store or database: the
    /// password may then have been changed already.
    pub async fn change_password(
        &self,
        settings: &Reloadable,
        user: User,
        change: &PasswordChange,
        asking: (Option<SessionId>, IpAddr),
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        change
            .check(&user, settings.identity.passwords)
            .map_err(Rejection::invalid_fields)?;
        let (session, ip) = asking;
        let cost = settings.identity.passwords.cost;
        let known_here = self
            .database
            .has_address(&user.id, &address_key(ip))
            .await?;
        let slot = self.passwords.acquire_sign_in_slot(known_here).await?;
        let failures = [FailureCounters::for_account(
            &user.id,
            ip,
            known_here,
            &settings.identity,
        )];
        let claim = PasswordCheck {
            user: Some(user),
            password: change.current.expose_secret(),
            counters: &failures,
            ip,
        };
        let user = self
            .verify_password(&settings.identity, slot, claim, limits)
            .await?;
        // The other sessions end first: until that is certain the current password stays, and the
        // request can be repeated.
        self.end_other_sessions(&user, asking).await?;
        let (user, unapplied) = self.replace_password(user, change, session, cost).await?;
        let event = Event::new(EventKind::PasswordChanged).user(&user.id).ip(ip);
        self.events.record(match session {
            Some(session) => event.session(session),
            None => event,
        });
        // Sessions opened with the old password in the meantime.
        self.end_other_sessions(&user, asking).await?;
        self.store.invalidate_profile(&user.id).await?;
        unapplied.complete();
        Ok(())
    }

    /// Ends all of the user's sessions but the current one. Idle ones end too, so that none of them
    /// remains merely expired.
    async fn end_other_sessions(
        &self,
        user: &User,
        (session, ip): (Option<SessionId>, IpAddr),
    ) -> Result<(), AccountError> {
        let reason = EndReason::PasswordChanged;
        self.end_user_sessions(&user.id, session, reason, Some(ip), None)
            .await?;
        Ok(())
    }

    /// Replaces the password hash, but not one that was set after the current one was compared. A
    /// rehash of the same password by a sign-in does not count. All sessions but `kept` are to end then.
    async fn replace_password(
        &self,
        mut user: User,
        change: &PasswordChange,
        kept: Option<SessionId>,
        cost: HashCost,
    ) -> Result<(User, UserChange<'_>), AccountError> {
        let hash = self.hash_password(change.new.expose_secret(), cost).await?;
        let password = NewPassword {
            hash: hash.clone(),
            kept,
        };
        let unapplied = self.begin_password_change(&user.id, Some(password));
        loop {
            let old = user.password_hash.as_deref();
            let old = old.ok_or(Refusal::InvalidCredentials)?;
            let replaced = self
                .database
                .replace_password_hash(&user.id, old, &hash, Some(clock::unix_millis()))
                .await?;
            if replaced {
                return Ok((user, unapplied));
            }
            let current = change.current.expose_secret();
            user = self.reverify_password(&user.id, current, cost).await?;
        }
    }

    /// Reads a user's picture.
    ///
    /// # Errors
    /// The database does not respond.
    pub async fn avatar(&self, user: &str) -> Result<Option<Avatar>, AccountError> {
        Ok(self.database.avatar(user).await?)
    }

    /// Reads the type and the time of a user's picture.
    ///
    /// # Errors
    /// The database does not respond.
    pub async fn avatar_info(&self, user: &str) -> Result<Option<AvatarInfo>, AccountError> {
        Ok(self.database.avatar_info(user).await?)
    }

    /// Stores the user's picture, replacing an earlier one.
    ///
    /// # Errors
    /// An invalid field (`avatar`) for an unsupported picture type, `NOT_FOUND`, or an unavailable
    /// store or database.
    pub async fn put_avatar(&self, user: &str, bytes: Vec<u8>) -> Result<AvatarInfo, AccountError> {
        let kinds = "must be a whole PNG, JPEG, GIF or WebP picture";
        let media_type =
            picture::media_type(&bytes).ok_or_else(|| Rejection::invalid_field("avatar", kinds))?;
        let about = AvatarInfo {
            media_type: media_type.to_owned(),
            updated_at: clock::unix_millis(),
        };
        let avatar = Avatar {
            info: about.clone(),
            bytes,
        };
        if !self.database.put_avatar(user, &avatar).await? {
            return Err(Refusal::NotFound.into());
        }
        self.store.invalidate_profile(user).await?;
        Ok(about)
    }

    /// Deletes the user's picture.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is none, or an unavailable store or database.
    pub async fn drop_avatar(&self, user: &str) -> Result<(), AccountError> {
        let was_there = self.database.delete_avatar(user).await?;
        self.store.invalidate_profile(user).await?;
        match was_there {
            true => Ok(()),
            false => Err(Refusal::NotFound.into()),
        }
    }
}
