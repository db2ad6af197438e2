//! Waiting until replicas have a revocation. `WAIT` counts what its own connection has written and
//! keeps that connection from everything else, so there is one for it alone, on which the writing is
//! done once more: a server that has become the master meanwhile cannot confirm what it never had.

use std::sync::OnceLock;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::exchange_error::{self, ExchangeError};
use super::topology_client::TopologyClient;
use crate::store::StoreError;
use crate::store::redis::Redis;
use crate::store::redis::codec::scripts::ScriptCall;

/// How long one `WAIT` keeps the connection: it must be found alive by its watch in between.
const WAIT_ROUND: Duration = Duration::from_millis(50);
/// Between two rounds of one who waits, others have theirs.
const PAUSE: Duration = Duration::from_millis(1);

pub(in crate::store::redis) struct Replicas {
    required: u32,
    /// From the beginning of the revocation to the last word: a little less than the store's deadline,
    /// so that it is known what is missing.
    timeout: Duration,
    client: OnceLock<TopologyClient>,
    /// One `WAIT` at a time, in the order in which they were asked for.
    wait_lock: Mutex<()>,
}

impl Replicas {
    pub(in crate::store::redis) fn new(required: u32, timeout: Duration) -> Replicas {
        Replicas {
            required,
            timeout: timeout * 4 / 5,
            client: OnceLock::new(),
            wait_lock: Mutex::default(),
        }
    }

    /// Begins to connect, if that has not begun.
    pub(in crate::store::redis) fn connect(&self, open: impl FnOnce() -> TopologyClient) {
        self.client.get_or_init(open);
    }

    /// Whether enough replicas have what these commands write, on every server that they went to.
    async fn confirm(&self, commands: &Pipeline, until: Instant) -> Result<bool, ExchangeError> {
        let _turn = self.wait_lock.lock().await;
        let road = self
            .client
            .get()
            .ok_or_else(|| ExchangeError::unreachable(""))?;
        let round = WAIT_ROUND.min(until.saturating_duration_since(Instant::now()));
        // 0 would be for ever.
        let round = u64::try_from(round.as_millis()).unwrap_or(1).max(1);
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.required).arg(round);
        let (replies, confirmed) = road.execute_all_then(commands, &wait).await?;
        for reply in replies.iter().chain(&confirmed) {
            exchange_error::check_server_error(reply)
                .map_err(|_| ExchangeError::unreachable("refused"))?;
        }
        let enough =
            |reply: &Value| matches!(reply, Value::Int(n) if *n >= i64::from(self.required));
        Ok(!confirmed.is_empty() && confirmed.iter().all(enough))
    }
}

impl Redis {
    /// Waits until as many replicas as are wanted have what was revoked since `began`. The calls must
    /// revoke the same as often as they are made, and write something each time.
    pub(in crate::store::redis) async fn wait_for_replicas(
        &self,
        began: Instant,
        calls: impl FnOnce() -> Vec<ScriptCall>,
    ) -> Result<(), StoreError> {
        let Some(replicas) = &self.replicas else {
            return Ok(());
        };
        let mut commands = redis::pipe();
        for call in calls() {
            commands.add_command(call.command);
        }
        if commands.is_empty() {
            return Ok(());
        }
        let until = began + replicas.timeout;
        let mut fault = ExchangeError::unreplicated();
        while Instant::now() < until {
            match timeout_at(until, replicas.confirm(&commands, until)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => fault.code = error.code,
            }
            sleep(PAUSE).await;
        }
        let topology = &self.context.address.topology;
        self.context
            .warn(topology, "a revocation is not safe", &fault);
        Err(StoreError::Unreplicated)
    }
}
