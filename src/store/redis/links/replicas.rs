//! Waits until replicas have confirmed a revocation.
//!
//! `WAIT` confirms the writes of its own connection, and blocks it meanwhile. It therefore has its own
//! connection, on which the write is repeated: a server that has been promoted in the meantime could
//! not confirm a write that it never received.

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

/// Longest duration of one `WAIT`: the supervisor must be able to check the connection in between.
const WAIT_ROUND: Duration = Duration::from_millis(50);
/// Pause between two rounds, in which other revocations have theirs.
const PAUSE: Duration = Duration::from_millis(1);

/// Confirms writes on the required number of replicas.
pub(in crate::store::redis) struct Replicas {
    required: u32,
    /// Time from the start of the revocation: a little less than the store's timeout, so that the
    /// operation fails with the right error.
    timeout: Duration,
    client: OnceLock<TopologyClient>,
    /// Serializes `WAIT` commands, in the order of the requests.
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

    /// Connects, unless that has been done.
    pub(in crate::store::redis) fn connect(&self, open: impl FnOnce() -> TopologyClient) {
        self.client.get_or_init(open);
    }

    /// Repeats these commands; returns whether enough replicas of every server have confirmed them.
    async fn confirm(&self, commands: &Pipeline, until: Instant) -> Result<bool, ExchangeError> {
        let _guard = self.wait_lock.lock().await;
        let client = self
            .client
            .get()
            .ok_or_else(|| ExchangeError::unreachable(""))?;
        let round = WAIT_ROUND.min(until.saturating_duration_since(Instant::now()));
        // 0 would wait forever.
        let round = u64::try_from(round.as_millis()).unwrap_or(1).max(1);
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.required).arg(round);
        let (replies, confirmed) = client.execute_all_then(commands, &wait).await?;
        for reply in replies.iter().chain(&confirmed) {
            exchange_error::check_server_error(reply)
                .map_err(|_| ExchangeError::unreachable("refused"))?;
        }
        let is_enough =
            |reply: &Value| matches!(reply, Value::Int(n) if *n >= i64::from(self.required));
        Ok(!confirmed.is_empty() && confirmed.iter().all(is_enough))
    }
}

impl Redis {
    /// Waits until the required replicas have the revocation that began at `started`.
    ///
    /// The calls must be idempotent, and write something each time.
    pub(in crate::store::redis) async fn wait_for_replicas(
        &self,
        started: Instant,
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
        let until = started + replicas.timeout;
        let mut failure = ExchangeError::unreplicated();
        while Instant::now() < until {
            match timeout_at(until, replicas.confirm(&commands, until)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => failure.code = error.code,
            }
            sleep(PAUSE).await;
        }
        let topology = &self.context.address.topology;
        self.context
            .warn(topology, "a revocation is not replicated", &failure);
        Err(StoreError::Unreplicated)
    }
}
