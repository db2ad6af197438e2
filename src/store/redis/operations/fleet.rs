//! The gateways: one hash, a field for each, `<heard up to> <until>`, both Unix ms.

use std::collections::{BTreeMap, HashMap};

use redis::Value;

use crate::auth::session::Millis;
use crate::store::StoreError;
use crate::store::fleet::PRESENCE_TTL;
use crate::store::redis::{Redis, decode_reply, parse_time};

impl Redis {
    /// Tells how many gateways there are.
    pub(in crate::store) async fn announce_presence(
        &self,
        name: &str,
        heard: Millis,
    ) -> Result<u64, StoreError> {
        let call = self.scripts.presence.call(&[self.keys.gateways()]);
        let call = call
            .arg(name)
            .arg(heard)
            .arg(PRESENCE_TTL.as_millis() as u64);
        decode_reply(self.run(call).await?)
    }

    pub(in crate::store) async fn withdraw_presence(&self, name: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.gateways()).arg(name);
        self.execute(&command).await.map(drop)
    }

    /// Those that are there, each with up to when it has heard of changes.
    pub(in crate::store) async fn present_gateways(
        &self,
    ) -> Result<BTreeMap<String, Millis>, StoreError> {
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        questions.cmd("HGETALL").arg(self.keys.gateways());
        let replies: [Value; 2] = self
            .execute_all(&questions)
            .await?
            .try_into()
            .map_err(|_| StoreError::Malformed)?;
        let [time, said] = replies;
        let now = parse_time(&time).ok_or(StoreError::Malformed)?;
        let said: HashMap<String, String> = decode_reply(said)?;
        let present = said.into_iter().filter_map(|(name, said)| {
            let (heard, until) = said.split_once(' ')?;
            let (heard, until): (Millis, Millis) = (heard.parse().ok()?, until.parse().ok()?);
            (now < until).then_some((name, heard))
        });
        Ok(present.collect())
    }
}
