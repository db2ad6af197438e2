//! Client of a cluster: a connection to each master.
//!
//! Commands are sent to the masters of their slots, in parallel, and redirects are followed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::task::AbortHandle;

use super::cluster_map::ClusterMap;
use super::connection::{StoreConnection, Target};
use super::connection_context::ConnectionContext;
use super::exchange_error::ExchangeError;
use super::slots::{Redirect, SlotMap, parse_redirect, slot_of};
use crate::clock;
use crate::settings::RedisNode;
use crate::store::redis::codec::scripts::Scripts;

/// Time for which redirects are followed. The caller has its own, shorter deadline.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before a retry while keys are migrating.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// Connections of one handle to the masters of a cluster.
pub(in crate::store::redis) struct ClusterClient {
    masters: Arc<MasterConnections>,
    reconcile_task: AbortHandle,
}

struct MasterConnections {
    cluster_map: Arc<ClusterMap>,
    context: Arc<ConnectionContext>,
    scripts: Arc<Scripts>,
    by_node: Mutex<HashMap<RedisNode, Arc<StoreConnection>>>,
}

/// Destination of a pending command.
enum Destination {
    /// The master of its slot, or any master for a command without a key.
    SlotOwner,
    /// This server, after `MOVED`.
    Server(RedisNode),
    /// This server for this command only, after `ASK`.
    Asking(RedisNode),
}

/// Commands that are sent to one server together.
struct CommandBatch {
    server: RedisNode,
    asking: bool,
    positions: Vec<usize>,
}

impl ClusterClient {
    /// Spawns the tasks that connect, on the current Tokio runtime.
    pub(in crate::store::redis) fn spawn(
        cluster_map: Arc<ClusterMap>,
        context: Arc<ConnectionContext>,
        scripts: Arc<Scripts>,
    ) -> ClusterClient {
        cluster_map.start_refreshing();
        let masters = Arc::new(MasterConnections {
            cluster_map,
            context,
            scripts,
            by_node: Mutex::default(),
        });
        let reconcile_task = tokio::spawn(reconcile_masters(Arc::clone(&masters))).abort_handle();
        ClusterClient {
            masters,
            reconcile_task,
        }
    }

    pub(in crate::store::redis) fn is_up(&self) -> bool {
        let Some(map) = self.masters.cluster_map.current() else {
            return false;
        };
        let connections = self.masters.by_node.lock();
        let is_up = |master| {
            let connection = connections.get(master);
            connection.is_some_and(|connection| connection.is_up())
        };
        map.masters().iter().all(is_up)
    }

    pub(in crate::store::redis) fn report_timeout(&self) {
        self.masters
            .by_node
            .lock()
            .values()
            .for_each(|connection| connection.report_timeout());
    }

    pub(in crate::store::redis) fn master_count(&self) -> usize {
        self.masters
            .cluster_map
            .current()
            .map_or(0, |map| map.masters().len())
    }

    pub(in crate::store::redis) async fn execute_on_master(
        &self,
        index: usize,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        let map = self.masters.cluster_map.current().ok_or_else(no_server)?;
        let master = map.masters().get(index).ok_or_else(no_server)?;
        let connection = self.masters.connection_to(master);
        connection.wait_for_first_attempt().await;
        connection.execute(command).await
    }

    pub(in crate::store::redis) async fn execute(
        &self,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        let reply = self.execute_each(&[command], None).await?.0.pop();
        match reply.ok_or_else(no_server)? {
            Value::ServerError(error) => Err(ExchangeError::from(RedisError::from(error))),
            reply => Ok(reply),
        }
    }

    pub(in crate::store::redis) async fn execute_all(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, ExchangeError> {
        let commands: Vec<&Cmd> = commands.cmd_iter().collect();
        Ok(self.execute_each(&commands, None).await?.0)
    }

    pub(in crate::store::redis) async fn execute_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Vec<Value>), ExchangeError> {
        let commands: Vec<&Cmd> = commands.cmd_iter().collect();
        self.execute_each(&commands, Some(last)).await
    }

    /// Executes commands; returns their replies, and each server's reply to `last` if it is given.
    async fn execute_each(
        &self,
        commands: &[&Cmd],
        last: Option<&Cmd>,
    ) -> Result<(Vec<Value>, Vec<Value>), ExchangeError> {
        let mut last_replies = Vec::new();
        // A command without a reply is an error: nil would mean "missing".
        let mut replies: Vec<Option<Value>> = vec![None; commands.len()];
        let mut pending: Vec<(usize, Destination)> = (0..commands.len())
            .map(|position| (position, Destination::SlotOwner))
            .collect();
        let started = clock::monotonic();
        while started.elapsed() < REDIRECT_TIMEOUT {
            let batches = self.masters.batch_by_server(commands, pending)?;
            let sent = batches
                .iter()
                .map(|batch| self.masters.send_batch(batch, commands, last));
            let outcomes = join_all(sent).await;
            pending = Vec::new();
            for (batch, outcome) in batches.iter().zip(outcomes) {
                let (batch_replies, last_reply) = outcome?;
                last_replies.extend(last_reply);
                for (position, reply) in batch.positions.iter().zip(batch_replies) {
                    if let Some(redirect) = parse_redirect(&reply, &batch.server) {
                        pending.push((*position, self.masters.follow_redirect(redirect)));
                    } else if let Some(entry) = replies.get_mut(*position) {
                        *entry = Some(reply);
                    }
                }
            }
            if pending.is_empty() {
                let replies: Option<Vec<Value>> = replies.into_iter().collect();
                return Ok((replies.ok_or_else(no_server)?, last_replies));
            }
            if pending
                .iter()
                .any(|(_, destination)| matches!(destination, Destination::SlotOwner))
            {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
        Err(ExchangeError {
            fatal: false,
            ..ExchangeError::unreachable("too many redirects")
        })
    }
}

impl Drop for ClusterClient {
    fn drop(&mut self) {
        self.reconcile_task.abort();
    }
}

impl MasterConnections {
    /// The connection to a server, created if there is none.
    fn connection_to(&self, server: &RedisNode) -> Arc<StoreConnection> {
        let mut connections = self.by_node.lock();
        let connection = connections.entry(server.clone()).or_insert_with(|| {
            let target = Target::Member(server.clone(), Arc::clone(&self.cluster_map));
            let (context, scripts) = (Arc::clone(&self.context), Arc::clone(&self.scripts));
            Arc::new(StoreConnection::spawn(target, context, scripts))
        });
        Arc::clone(connection)
    }

    /// Groups pending commands by server, in order.
    fn batch_by_server(
        &self,
        commands: &[&Cmd],
        pending: Vec<(usize, Destination)>,
    ) -> Result<Vec<CommandBatch>, ExchangeError> {
        let map = self.cluster_map.current().ok_or_else(no_server)?;
        let mut batches: Vec<CommandBatch> = Vec::new();
        for (position, destination) in pending {
            let (server, asking) = match destination {
                Destination::Server(server) => (server, false),
                Destination::Asking(server) => (server, true),
                Destination::SlotOwner => {
                    let slot = commands.get(position).and_then(|command| slot_of(command));
                    let owner = match slot {
                        Some(slot) => map.owner(slot),
                        None => self.any_master(&map),
                    };
                    (owner.ok_or_else(no_server)?.clone(), false)
                }
            };
            let is_same =
                |batch: &&mut CommandBatch| batch.asking == asking && batch.server == server;
            match batches.iter_mut().find(is_same) {
                Some(batch) => batch.positions.push(position),
                None => batches.push(CommandBatch {
                    server,
                    asking,
                    positions: vec![position],
                }),
            }
        }
        Ok(batches)
    }

    /// The first master that is connected, or else the first one.
    fn any_master<'m>(&self, map: &'m SlotMap) -> Option<&'m RedisNode> {
        let connections = self.by_node.lock();
        let is_up = |master: &&RedisNode| {
            let connection = connections.get(*master);
            connection.is_some_and(|connection| connection.is_up())
        };
        map.masters().iter().find(is_up).or(map.masters().first())
    }

    async fn send_batch(
        &self,
        batch: &CommandBatch,
        commands: &[&Cmd],
        last: Option<&Cmd>,
    ) -> Result<(Vec<Value>, Option<Value>), ExchangeError> {
        let mut pipeline = redis::pipe();
        for command in batch
            .positions
            .iter()
            .filter_map(|position| commands.get(*position))
        {
            if batch.asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command((*command).clone());
        }
        let connection = self.connection_to(&batch.server);
        connection.wait_for_first_attempt().await;
        let (mut replies, last_reply) = match last {
            None => (connection.execute_all(&pipeline).await?, None),
            Some(last) => {
                let (replies, last_reply) = connection.execute_all_then(&pipeline, last).await?;
                (replies, Some(last_reply))
            }
        };
        if batch.asking {
            // Every other reply is that of `ASKING`.
            replies = replies.into_iter().skip(1).step_by(2).collect();
        }
        Ok((replies, last_reply))
    }

    fn follow_redirect(&self, redirect: Redirect) -> Destination {
        match redirect {
            Redirect::Moved(server) => {
                self.cluster_map.add_master(&server);
                self.cluster_map.request_refresh();
                Destination::Server(server)
            }
            Redirect::Ask(server) => {
                self.cluster_map.add_master(&server);
                Destination::Asking(server)
            }
            Redirect::TryAgain => Destination::SlotOwner,
        }
    }
}

/// Opens connections to new masters, and closes those to servers that are no longer masters.
async fn reconcile_masters(connections: Arc<MasterConnections>) {
    let mut maps = connections.cluster_map.subscribe();
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            let masters = map.masters();
            connections
                .by_node
                .lock()
                .retain(|server, _| masters.contains(server));
            for master in masters {
                connections.connection_to(master);
            }
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// Error for a slot without a known server.
fn no_server() -> ExchangeError {
    ExchangeError {
        fatal: false,
        ..ExchangeError::unreachable("")
    }
}
