//! Index of sign-ins, logout marks, used logout tokens and redeemed codes.

use std::collections::HashMap;
use std::time::Duration;

use crate::auth::provider_logout::SignInGroup;
use crate::auth::session::Millis;
use crate::store::StoreError;
use crate::store::provider_logout::{LogoutTokenUse, MARK_TTL, MAX_USERS, NUMBER_TTL};
use crate::store::redis::codec::text_codec::{decode_user_id, encode_user_id};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};

impl Redis {
    pub(in crate::store) async fn index_sign_in(
        &self,
        groups: &[SignInGroup],
        user: &str,
        until: Millis,
    ) -> Result<(), StoreError> {
        let call = |group| {
            let script = &self.scripts.index_sign_in;
            let call = script.call(&[self.keys.sign_in_users(group)]);
            call.arg(encode_user_id(user)).arg(until).arg(MAX_USERS)
        };
        for reply in self.run_all(groups.iter().map(call).collect()).await? {
            exchange_error::reject_server_error(reply)?;
        }
        Ok(())
    }

    pub(in crate::store) async fn sign_in_users(
        &self,
        groups: &[SignInGroup],
    ) -> Result<Vec<String>, StoreError> {
        let mut commands = redis::pipe();
        for group in groups {
            commands.cmd("HGETALL").arg(self.keys.sign_in_users(group));
        }
        let mut users = Vec::new();
        for reply in self.execute_all(&commands).await? {
            // Another type counts as none: it was not written by a sign-in.
            let encoded: HashMap<Vec<u8>, Vec<u8>> = match decode_reply(reply) {
                Err(StoreError::Malformed) => HashMap::new(),
                encoded => encoded?,
            };
            users.extend(encoded.keys().filter_map(|user| decode_user_id(user)));
        }
        users.sort_unstable();
        users.dedup();
        Ok(users)
    }

    pub(in crate::store) async fn mark_logout(
        &self,
        groups: &[SignInGroup],
    ) -> Result<(), StoreError> {
        let number = self.scripts.number_logout.call(&[self.keys.logouts()]);
        let number = number.arg(NUMBER_TTL.as_secs());
        let number: u64 = decode_reply(self.run(number).await?)?;
        let mut commands = redis::pipe();
        for group in groups {
            let command = commands.cmd("SET").arg(self.keys.logout_mark(group));
            command.arg(number).arg("EX").arg(MARK_TTL.as_secs());
        }
        for reply in self.execute_all(&commands).await? {
            exchange_error::reject_server_error(reply)?;
        }
        Ok(())
    }

    pub(in crate::store) async fn latest_logout(&self) -> Result<u64, StoreError> {
        let mut command = redis::cmd("GET");
        let reply = self.execute(command.arg(self.keys.logouts())).await?;
        let latest: Option<u64> = decode_reply(reply)?;
        Ok(latest.unwrap_or(0))
    }

    pub(in crate::store) async fn logout_marks(
        &self,
        groups: &[SignInGroup],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        let mut commands = redis::pipe();
        for group in groups {
            commands.cmd("GET").arg(self.keys.logout_mark(group));
        }
        let replies = self.execute_all(&commands).await?;
        replies.into_iter().map(decode_reply).collect()
    }

    pub(in crate::store) async fn is_logout_token_used(
        &self,
        token: LogoutTokenUse,
    ) -> Result<bool, StoreError> {
        let mut command = redis::cmd("EXISTS");
        decode_reply(
            self.execute(command.arg(self.keys.logout_token(&token.key)))
                .await?,
        )
    }

    pub(in crate::store) async fn use_logout_token(
        &self,
        token: LogoutTokenUse,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let key = self.keys.logout_token(&token.key);
        self.use_once(key, token.attempt, ttl).await
    }

    pub(in crate::store) async fn redeem_code(
        &self,
        code: &[u8; 16],
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let key = self.keys.provider_code(code);
        self.use_once(key, rand::random(), ttl).await
    }

    /// Records the use of something by an attempt; `false`: another attempt has used it. A command that is
    /// repeated has the same result.
    async fn use_once(&self, key: String, attempt: u64, ttl: Duration) -> Result<bool, StoreError> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut commands = redis::pipe();
        let set = commands.cmd("SET").arg(&key).arg(attempt);
        set.arg("NX").arg("PX").arg(ttl);
        commands.cmd("GET").arg(&key);
        let [set, user] = self
            .execute_all(&commands)
            .await?
            .try_into()
            .map_err(|_| StoreError::Malformed)?;
        exchange_error::reject_server_error(set)?;
        let user: Option<u64> = decode_reply(user)?;
        Ok(user == Some(attempt))
    }

    pub(in crate::store) async fn release_logout_token(
        &self,
        token: LogoutTokenUse,
    ) -> Result<(), StoreError> {
        let key = self.keys.logout_token(&token.key);
        let call = self.scripts.release.call(&[key]).arg(token.attempt);
        self.run(call).await.map(drop)
    }
}
