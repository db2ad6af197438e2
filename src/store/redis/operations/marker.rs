//! Marker keys, blacklist TTLs and restoration of revocations.

use std::time::Duration;

use redis::Value;

use crate::auth::session::Millis;
use crate::store::marker::{MARKER_TTL, Marker, MarkerState};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::store::{Revocation, StoreError};

impl Redis {
    /// Waits for a reason to check the marker.
    pub(in crate::store) async fn data_may_have_changed(&self) {
        self.context.data_may_have_changed().await;
    }

    /// Reports that all data may have changed although the connections are up.
    pub(in crate::store) fn notify_data_may_have_changed(&self) {
        self.context.notify_data_may_have_changed();
    }

    pub(in crate::store) async fn marker_state(&self) -> Result<MarkerState, StoreError> {
        Ok(MarkerState::from_markers(
            &self.read_markers(&self.marker_keys()?).await?,
        ))
    }

    pub(in crate::store) async fn write_marker(&self, cut_off: u64) -> Result<Marker, StoreError> {
        let keys = self.marker_keys()?;
        let id = match self.read_markers(&keys).await?.into_iter().flatten().next() {
            Some(marker) => marker.id,
            // Created at the first key, where the first of concurrent gateways wins.
            None => {
                self.create_marker(keys.first().ok_or(StoreError::Malformed)?)
                    .await?
            }
        };
        let calls = keys.iter().map(|key| {
            let call = self.scripts.write_marker.call(&[key]);
            call.arg(&id).arg(cut_off).arg(whole_millis(MARKER_TTL))
        });
        let mut global_cut_off = 0;
        for reply in self.run_all(calls.collect()).await? {
            global_cut_off = global_cut_off.max(decode_reply::<u64>(reply)?);
        }
        Ok(Marker { id, global_cut_off })
    }

    async fn create_marker(&self, key: &str) -> Result<String, StoreError> {
        let id = format!("{:016x}", rand::random::<u64>());
        let mut command = redis::cmd("SET");
        command.arg(key).arg(format!("{id} 0"));
        command.arg("NX").arg("PX").arg(whole_millis(MARKER_TTL));
        self.execute(&command).await?;
        let stored = self.read_markers(&[key.to_owned()]).await?.pop().flatten();
        // Malformed content is overwritten by the caller.
        Ok(stored.map_or(id, |marker| marker.id))
    }

    pub(in crate::store) async fn extend_marker(&self) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        for key in self.marker_keys()? {
            commands
                .cmd("PEXPIRE")
                .arg(key)
                .arg(whole_millis(MARKER_TTL));
        }
        for reply in self.execute_all(&commands).await? {
            exchange_error::reject_server_error(reply)?;
        }
        Ok(())
    }

    fn marker_keys(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.keys.markers(self.client()?.is_cluster()))
    }

    async fn read_markers(&self, keys: &[String]) -> Result<Vec<Option<Marker>>, StoreError> {
        let mut commands = redis::pipe();
        for key in keys {
            commands.cmd("GET").arg(key);
        }
        let replies = self.execute_all(&commands).await?;
        replies.into_iter().map(parse_marker).collect()
    }

    /// Returns the remaining time on the blacklist for each key; `None`: not blacklisted.
    pub(in crate::store) async fn blacklist_ttls(
        &self,
        keys: &[&str],
    ) -> Result<Vec<Option<Duration>>, StoreError> {
        let mut commands = redis::pipe();
        for key in keys {
            commands.cmd("PTTL").arg(self.keys.blacklist(key));
        }
        let ttl = |reply| {
            Ok(match decode_reply::<i64>(reply)? {
                -2 => None,
                // Written by another program without a TTL.
                -1 => Some(Duration::MAX),
                ttl => Some(Duration::from_millis(ttl.unsigned_abs())),
            })
        };
        let replies = self.execute_all(&commands).await?;
        replies.into_iter().map(ttl).collect()
    }

    pub(in crate::store) async fn restore_revocations(
        &self,
        revocations: &[(Revocation, Millis)],
        now: Millis,
        deadline: Duration,
    ) -> Result<(), StoreError> {
        let mut calls = Vec::with_capacity(revocations.len());
        for (revocation, until) in revocations {
            let ttl = until.saturating_sub(now).max(1);
            match revocation {
                Revocation::Token(key) => {
                    let mut command = redis::cmd("SET");
                    command.arg(self.keys.blacklist(key)).arg(1);
                    command.arg("NX").arg("PX").arg(ttl);
                    calls.push(command.into());
                }
                Revocation::IssuedBefore(user, second) => {
                    let call = self.scripts.cut_off.call(&[self.keys.cut_off(user)]);
                    calls.push(call.arg(ttl).arg(second));
                }
                Revocation::Session(_) => {}
            }
        }
        for reply in self.with_deadline(deadline, self.run_all(calls)).await? {
            exchange_error::reject_server_error(reply)?;
        }
        Ok(())
    }
}

/// Parses a marker; malformed content counts as none.
fn parse_marker(reply: Value) -> Result<Option<Marker>, StoreError> {
    if exchange_error::is_wrong_type(&reply) {
        return Ok(None);
    }
    let text: Option<String> = match decode_reply(reply) {
        Err(StoreError::Malformed) => None,
        text => text?,
    };
    Ok(text.as_deref().and_then(|text| {
        let (id, cut_off) = text.split_once(' ')?;
        let is_hex = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let global_cut_off = cut_off.parse().ok()?;
        is_hex.then(|| Marker {
            id: id.to_owned(),
            global_cut_off,
        })
    }))
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
