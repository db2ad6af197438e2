//! The gateways: one hash, a field for each, `<heard up to> <until>`, both Unix ms.

use std::collections::{BTreeMap, HashMap};

use redis::Value;

use super::super::StoreError;
use super::super::fleet::COUNTS_FOR;
use super::{Redis, clock, read};
use crate::auth::session::Millis;

impl Redis {
    /// Tells how many gateways there are.
    pub(in super::super) async fn be_present(
        &self,
        name: &str,
        heard: Millis,
    ) -> Result<u64, StoreError> {
        let call = self.scripts.presence.on(&[self.keys.gateways()]);
        let call = call.arg(name).arg(heard).arg(COUNTS_FOR.as_millis() as u64);
        read(self.run(call).await?)
    }

    pub(in super::super) async fn leave(&self, name: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.gateways()).arg(name);
        self.ask(&command).await.map(drop)
    }

    /// Those that are there, each with up to when it has heard of changes.
    pub(in super::super) async fn present(&self) -> Result<BTreeMap<String, Millis>, StoreError> {
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        questions.cmd("HGETALL").arg(self.keys.gateways());
        let replies: [Value; 2] = self
            .ask_all(&questions)
            .await?
            .try_into()
            .map_err(|_| StoreError::Malformed)?;
        let [time, said] = replies;
        let now = clock(&time).ok_or(StoreError::Malformed)?;
        let said: HashMap<String, String> = read(said)?;
        let present = said.into_iter().filter_map(|(name, said)| {
            let (heard, until) = said.split_once(' ')?;
            let (heard, until): (Millis, Millis) = (heard.parse().ok()?, until.parse().ok()?);
            (now < until).then_some((name, heard))
        });
        Ok(present.collect())
    }
}
