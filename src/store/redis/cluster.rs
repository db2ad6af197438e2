//! A cluster: a link of this handle to each of its masters. Questions go to the servers that have their slots, side by side, and follow where a
//! server sends them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::task::AbortHandle;

use super::atlas::Atlas;
use super::connection::{Link, Target};
use super::fault::Fault;
use super::links::Links;
use super::scripts::Scripts;
use super::slots::{Map, Redirect, redirect, slot_of};
use crate::settings::Node;

/// How long a question is sent on before it counts as unanswered.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// How long to wait where keys are on their way.
const MOMENT: Duration = Duration::from_millis(5);

/// A handle's links to the masters of a cluster.
pub(super) struct Cluster {
    fan: Arc<Fan>,
    keeper: AbortHandle,
}

struct Fan {
    atlas: Arc<Atlas>,
    links: Arc<Links>,
    scripts: Arc<Scripts>,
    open: Mutex<HashMap<Node, Arc<Link>>>,
}

/// Where a question that is not answered yet goes.
enum Bound {
    /// To who has its slot, or to anybody.
    Home,
    /// To this server, for good or as an exception.
    To(Node),
    Asking(Node),
}

/// Questions that go to one server together.
struct Batch {
    server: Node,
    asking: bool,
    places: Vec<usize>,
}

impl Cluster {
    /// Starts the tasks that connect, on the current tokio runtime.
    pub(super) fn supervised(
        atlas: Arc<Atlas>,
        links: Arc<Links>,
        scripts: Arc<Scripts>,
    ) -> Cluster {
        atlas.explore();
        let fan = Arc::new(Fan {
            atlas,
            links,
            scripts,
            open: Mutex::default(),
        });
        let keeper = tokio::spawn(keep(Arc::clone(&fan))).abort_handle();
        Cluster { fan, keeper }
    }

    pub(super) fn up(&self) -> bool {
        let Some(map) = self.fan.atlas.map() else {
            return false;
        };
        let open = self.fan.open.lock();
        let mut masters = map.masters().iter();
        masters.all(|master| open.get(master).is_some_and(|link| link.up()))
    }

    pub(super) fn suspect(&self) {
        self.fan
            .open
            .lock()
            .values()
            .for_each(|link| link.suspect());
    }

    pub(super) fn masters(&self) -> usize {
        self.fan.atlas.map().map_or(0, |map| map.masters().len())
    }

    pub(super) async fn ask_master(&self, place: usize, command: &Cmd) -> Result<Value, Fault> {
        let map = self.fan.atlas.map().ok_or_else(unknown)?;
        let master = map.masters().get(place).ok_or_else(unknown)?;
        let link = self.fan.link(master);
        link.tried().await;
        link.ask(command).await
    }

    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        let reply = self.ask_each(&[command], None).await?.0.pop();
        match reply.ok_or_else(unknown)? {
            Value::ServerError(error) => Err(Fault::from(RedisError::from(error))),
            reply => Ok(reply),
        }
    }

    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let commands: Vec<&Cmd> = commands.cmd_iter().collect();
        Ok(self.ask_each(&commands, None).await?.0)
    }

    pub(super) async fn ask_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Vec<Value>), Fault> {
        let commands: Vec<&Cmd> = commands.cmd_iter().collect();
        self.ask_each(&commands, Some(last)).await
    }

    /// Gives the answers, and what each server that was asked said to the last question, if there is
    /// one. Whoever asks has a deadline of their own; this ends what nobody waits for any more.
    async fn ask_each(
        &self,
        commands: &[&Cmd],
        last: Option<&Cmd>,
    ) -> Result<(Vec<Value>, Vec<Value>), Fault> {
        let mut lasts = Vec::new();
        // A command without reply is an error: nil would read as "missing".
        let mut replies: Vec<Option<Value>> = vec![None; commands.len()];
        let mut open: Vec<(usize, Bound)> = (0..commands.len())
            .map(|place| (place, Bound::Home))
            .collect();
        let started = Instant::now();
        while started.elapsed() < GIVE_UP_AFTER {
            let batches = self.fan.sort(commands, open)?;
            let sending = batches
                .iter()
                .map(|batch| self.fan.send(batch, commands, last));
            let answers = join_all(sending).await;
            open = Vec::new();
            for (batch, answer) in batches.iter().zip(answers) {
                let (answers, said) = answer?;
                lasts.extend(said);
                for (place, reply) in batch.places.iter().zip(answers) {
                    if let Some(elsewhere) = redirect(&reply, &batch.server) {
                        open.push((*place, self.fan.follow(elsewhere)));
                    } else if let Some(kept) = replies.get_mut(*place) {
                        *kept = Some(reply);
                    }
                }
            }
            if open.is_empty() {
                let replies: Option<Vec<Value>> = replies.into_iter().collect();
                return Ok((replies.ok_or_else(unknown)?, lasts));
            }
            if open.iter().any(|(_, bound)| matches!(bound, Bound::Home)) {
                tokio::time::sleep(MOMENT).await;
            }
        }
        Err(Fault {
            fatal: false,
            ..Fault::unreachable("sent from server to server")
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Fan {
    /// The link to a server, made if there is none.
    fn link(&self, server: &Node) -> Arc<Link> {
        let mut open = self.open.lock();
        let link = open.entry(server.clone()).or_insert_with(|| {
            let target = Target::Member(server.clone(), Arc::clone(&self.atlas));
            let (links, scripts) = (Arc::clone(&self.links), Arc::clone(&self.scripts));
            Arc::new(Link::supervised(target, links, scripts))
        });
        Arc::clone(link)
    }

    /// Puts questions together that go to the same server, in their order.
    fn sort(&self, commands: &[&Cmd], questions: Vec<(usize, Bound)>) -> Result<Vec<Batch>, Fault> {
        let map = self.atlas.map().ok_or_else(unknown)?;
        let mut batches: Vec<Batch> = Vec::new();
        for (place, bound) in questions {
            let (server, asking) = match bound {
                Bound::To(server) => (server, false),
                Bound::Asking(server) => (server, true),
                Bound::Home => {
                    let slot = commands.get(place).and_then(|command| slot_of(command));
                    let owner = match slot {
                        Some(slot) => map.owner(slot),
                        None => self.anybody(&map),
                    };
                    (owner.ok_or_else(unknown)?.clone(), false)
                }
            };
            let same = |batch: &&mut Batch| batch.asking == asking && batch.server == server;
            match batches.iter_mut().find(same) {
                Some(batch) => batch.places.push(place),
                None => batches.push(Batch {
                    server,
                    asking,
                    places: vec![place],
                }),
            }
        }
        Ok(batches)
    }

    /// The first master that is up.
    fn anybody<'m>(&self, map: &'m Map) -> Option<&'m Node> {
        let open = self.open.lock();
        let up = |master: &&Node| open.get(*master).is_some_and(|link| link.up());
        map.masters().iter().find(up).or(map.masters().first())
    }

    async fn send(
        &self,
        batch: &Batch,
        commands: &[&Cmd],
        last: Option<&Cmd>,
    ) -> Result<(Vec<Value>, Option<Value>), Fault> {
        let mut questions = redis::pipe();
        for command in batch.places.iter().filter_map(|place| commands.get(*place)) {
            if batch.asking {
                questions.cmd("ASKING");
            }
            questions.add_command((*command).clone());
        }
        let link = self.link(&batch.server);
        link.tried().await;
        let (mut replies, said) = match last {
            None => (link.ask_all(&questions).await?, None),
            Some(last) => {
                let (replies, said) = link.ask_all_then(&questions, last).await?;
                (replies, Some(said))
            }
        };
        if batch.asking {
            replies = replies.into_iter().skip(1).step_by(2).collect();
        }
        Ok((replies, said))
    }

    fn follow(&self, elsewhere: Redirect) -> Bound {
        match elsewhere {
            Redirect::Moved(server) => {
                self.atlas.met(&server);
                self.atlas.doubt();
                Bound::To(server)
            }
            Redirect::Ask(server) => {
                self.atlas.met(&server);
                Bound::Asking(server)
            }
            Redirect::TryAgain => Bound::Home,
        }
    }
}

/// Opens links to masters that are new, and closes those to servers that are none any more.
async fn keep(fan: Arc<Fan>) {
    let mut maps = fan.atlas.maps();
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            let masters = map.masters();
            fan.open.lock().retain(|server, _| masters.contains(server));
            for master in masters {
                fan.link(master);
            }
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// Nobody is known who could be asked.
fn unknown() -> Fault {
    Fault {
        fatal: false,
        ..Fault::unreachable("")
    }
}
