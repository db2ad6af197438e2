//! Presence of gateways: one hash, a field per gateway, `<confirmed up to> <valid until>` (Unix ms).

use std::collections::{BTreeMap, HashMap};

use redis::Value;

use crate::auth::session::Millis;
use crate::store::StoreError;
use crate::store::fleet::PRESENCE_TTL;
use crate::store::redis::{Redis, decode_reply, parse_time};

impl Redis {
    /// Announces a gateway; returns the number of gateways.
    pub(in crate::store) async fn announce_presence(
        &self,
        name: &str,
        confirmed_up_to: Millis,
    ) -> Result<u64, StoreError> {
        let call = self.scripts.presence.call(&[self.keys.gateways()]);
        let call = call
            .arg(name)
            .arg(confirmed_up_to)
            .arg(PRESENCE_TTL.as_millis() as u64);
        decode_reply(self.run(call).await?)
    }

    pub(in crate::store) async fn withdraw_presence(&self, name: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.gateways()).arg(name);
        self.execute(&command).await.map(drop)
    }

    /// Returns the gateways that are present, with the time up to which each has confirmed changes.
    pub(in crate::store) async fn present_gateways(
        &self,
    ) -> Result<BTreeMap<String, Millis>, StoreError> {
        let mut commands = redis::pipe();
        commands.cmd("TIME");
        commands.cmd("HGETALL").arg(self.keys.gateways());
        let replies: [Value; 2] = self
            .execute_all(&commands)
            .await?
            .try_into()
            .map_err(|_| StoreError::Malformed)?;
        let [time, fields] = replies;
        let now = parse_time(&time).ok_or(StoreError::Malformed)?;
        let fields: HashMap<String, String> = decode_reply(fields)?;
        let present = fields.into_iter().filter_map(|(name, value)| {
            let (confirmed_up_to, until) = value.split_once(' ')?;
            let confirmed_up_to: Millis = confirmed_up_to.parse().ok()?;
            let until: Millis = until.parse().ok()?;
            (now < until).then_some((name, confirmed_up_to))
        });
        Ok(present.collect())
    }
}
