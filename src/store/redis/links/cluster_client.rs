//! A cluster: a link of this handle to each of its masters. Questions go to the servers that have their slots, side by side, and follow where a
//! server sends them.

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

/// How long a question is sent on before it counts as unanswered.
const REDIRECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait where keys are on their way.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// A handle's links to the masters of a cluster.
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

/// Where a question that is not answered yet goes.
enum Destination {
    /// To who has its slot, or to anybody.
    SlotOwner,
    /// To this server, for good or as an exception.
    Server(RedisNode),
    Asking(RedisNode),
}

/// Questions that go to one server together.
struct CommandBatch {
    server: RedisNode,
    asking: bool,
    positions: Vec<usize>,
}

impl ClusterClient {
    /// Starts the tasks that connect, on the current tokio runtime.
    pub(in crate::store::redis) fn spawn(
        atlas: Arc<ClusterMap>,
        links: Arc<ConnectionContext>,
        scripts: Arc<Scripts>,
    ) -> ClusterClient {
        atlas.start_refreshing();
        let masters = Arc::new(MasterConnections {
            cluster_map: atlas,
            context: links,
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
        let open = self.masters.by_node.lock();
        let mut masters = map.masters().iter();
        masters.all(|master| open.get(master).is_some_and(|link| link.is_up()))
    }

    pub(in crate::store::redis) fn report_timeout(&self) {
        self.masters
            .by_node
            .lock()
            .values()
            .for_each(|link| link.report_timeout());
    }

    pub(in crate::store::redis) fn master_count(&self) -> usize {
        self.masters
            .cluster_map
            .current()
            .map_or(0, |map| map.masters().len())
    }

    pub(in crate::store::redis) async fn execute_on_master(
        &self,
        place: usize,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        let map = self.masters.cluster_map.current().ok_or_else(no_server)?;
        let master = map.masters().get(place).ok_or_else(no_server)?;
        let link = self.masters.connection_to(master);
        link.wait_for_first_attempt().await;
        link.execute(command).await
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

    /// Gives the answers, and what each server that was asked said to the last question, if there is
    /// one. Whoever asks has a deadline of their own; this ends what nobody waits for any more.
    async fn execute_each(
        &self,
        commands: &[&Cmd],
        last: Option<&Cmd>,
    ) -> Result<(Vec<Value>, Vec<Value>), ExchangeError> {
        let mut lasts = Vec::new();
        // A command without reply is an error: nil would read as "missing".
        let mut replies: Vec<Option<Value>> = vec![None; commands.len()];
        let mut open: Vec<(usize, Destination)> = (0..commands.len())
            .map(|place| (place, Destination::SlotOwner))
            .collect();
        let started = clock::monotonic();
        while started.elapsed() < REDIRECT_TIMEOUT {
            let batches = self.masters.batch_by_server(commands, open)?;
            let sending = batches
                .iter()
                .map(|batch| self.masters.send_batch(batch, commands, last));
            let answers = join_all(sending).await;
            open = Vec::new();
            for (batch, answer) in batches.iter().zip(answers) {
                let (answers, said) = answer?;
                lasts.extend(said);
                for (place, reply) in batch.positions.iter().zip(answers) {
                    if let Some(elsewhere) = parse_redirect(&reply, &batch.server) {
                        open.push((*place, self.masters.follow_redirect(elsewhere)));
                    } else if let Some(kept) = replies.get_mut(*place) {
                        *kept = Some(reply);
                    }
                }
            }
            if open.is_empty() {
                let replies: Option<Vec<Value>> = replies.into_iter().collect();
                return Ok((replies.ok_or_else(no_server)?, lasts));
            }
            if open
                .iter()
                .any(|(_, bound)| matches!(bound, Destination::SlotOwner))
            {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
        Err(ExchangeError {
            fatal: false,
            ..ExchangeError::unreachable("sent from server to server")
        })
    }
}

impl Drop for ClusterClient {
    fn drop(&mut self) {
        self.reconcile_task.abort();
    }
}

impl MasterConnections {
    /// The link to a server, made if there is none.
    fn connection_to(&self, server: &RedisNode) -> Arc<StoreConnection> {
        let mut open = self.by_node.lock();
        let link = open.entry(server.clone()).or_insert_with(|| {
            let target = Target::Member(server.clone(), Arc::clone(&self.cluster_map));
            let (links, scripts) = (Arc::clone(&self.context), Arc::clone(&self.scripts));
            Arc::new(StoreConnection::spawn(target, links, scripts))
        });
        Arc::clone(link)
    }

    /// Puts questions together that go to the same server, in their order.
    fn batch_by_server(
        &self,
        commands: &[&Cmd],
        questions: Vec<(usize, Destination)>,
    ) -> Result<Vec<CommandBatch>, ExchangeError> {
        let map = self.cluster_map.current().ok_or_else(no_server)?;
        let mut batches: Vec<CommandBatch> = Vec::new();
        for (place, bound) in questions {
            let (server, asking) = match bound {
                Destination::Server(server) => (server, false),
                Destination::Asking(server) => (server, true),
                Destination::SlotOwner => {
                    let slot = commands.get(place).and_then(|command| slot_of(command));
                    let owner = match slot {
                        Some(slot) => map.owner(slot),
                        None => self.any_master(&map),
                    };
                    (owner.ok_or_else(no_server)?.clone(), false)
                }
            };
            let same = |batch: &&mut CommandBatch| batch.asking == asking && batch.server == server;
            match batches.iter_mut().find(same) {
                Some(batch) => batch.positions.push(place),
                None => batches.push(CommandBatch {
                    server,
                    asking,
                    positions: vec![place],
                }),
            }
        }
        Ok(batches)
    }

    /// The first master that is up.
    fn any_master<'m>(&self, map: &'m SlotMap) -> Option<&'m RedisNode> {
        let open = self.by_node.lock();
        let up = |master: &&RedisNode| open.get(*master).is_some_and(|link| link.is_up());
        map.masters().iter().find(up).or(map.masters().first())
    }

    async fn send_batch(
        &self,
        batch: &CommandBatch,
        commands: &[&Cmd],
        last: Option<&Cmd>,
    ) -> Result<(Vec<Value>, Option<Value>), ExchangeError> {
        let mut questions = redis::pipe();
        for command in batch
            .positions
            .iter()
            .filter_map(|place| commands.get(*place))
        {
            if batch.asking {
                questions.cmd("ASKING");
            }
            questions.add_command((*command).clone());
        }
        let link = self.connection_to(&batch.server);
        link.wait_for_first_attempt().await;
        let (mut replies, said) = match last {
            None => (link.execute_all(&questions).await?, None),
            Some(last) => {
                let (replies, said) = link.execute_all_then(&questions, last).await?;
                (replies, Some(said))
            }
        };
        if batch.asking {
            replies = replies.into_iter().skip(1).step_by(2).collect();
        }
        Ok((replies, said))
    }

    fn follow_redirect(&self, elsewhere: Redirect) -> Destination {
        match elsewhere {
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

/// Opens links to masters that are new, and closes those to servers that are none any more.
async fn reconcile_masters(fan: Arc<MasterConnections>) {
    let mut maps = fan.cluster_map.subscribe();
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            let masters = map.masters();
            fan.by_node
                .lock()
                .retain(|server, _| masters.contains(server));
            for master in masters {
                fan.connection_to(master);
            }
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// Nobody is known who could be asked.
fn no_server() -> ExchangeError {
    ExchangeError {
        fatal: false,
        ..ExchangeError::unreachable("")
    }
}
