//! A cluster: a map of it that one task of the process keeps, and a link of this handle to each of
//! its masters. Questions go to the servers that have their slots, side by side, and follow where a
//! server sends them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::connection::{Link, Target};
use super::dial::{self, within};
use super::duty::{Duty, OnDuty};
use super::fault::Fault;
use super::links::Links;
use super::scripts::Scripts;
use super::slots::{Map, Redirect, redirect, slot_of};
use crate::settings::Node;

/// How long one server may take to say who has which slot, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// However often the map is doubted, it is asked for no more often.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is asked for when nobody doubts it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a question is sent on before it counts as unanswered.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
/// How long to wait where keys are on their way.
const MOMENT: Duration = Duration::from_millis(5);

/// What a process knows of the cluster.
pub(super) struct Atlas {
    seeds: Vec<Node>,
    links: Arc<Links>,
    map: watch::Sender<Option<Arc<Map>>>,
    doubted: Notify,
    exploring: Duty,
}

impl Atlas {
    pub(super) fn new(seeds: Vec<Node>, links: Arc<Links>) -> Atlas {
        Atlas {
            seeds,
            links,
            map: watch::Sender::new(None),
            doubted: Notify::new(),
            exploring: Duty::default(),
        }
    }

    /// Has the map asked for again: a server is lost, or sent a question elsewhere.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Begins to keep the map, on the current tokio runtime, unless that is being done.
    fn explore(self: &Arc<Atlas>) {
        if let Some(duty) = self.exploring.take_up() {
            tokio::spawn(explore(Arc::downgrade(self), duty));
        }
    }

    /// The map of the moment, and those that follow it.
    pub(super) fn maps(&self) -> watch::Receiver<Option<Arc<Map>>> {
        self.map.subscribe()
    }

    /// Takes notice of a server that the map does not have yet: slots are on their way to it, and
    /// what changes there must be heard.
    fn met(&self, server: &Node) {
        self.map.send_if_modified(|known| match known {
            Some(map) if !map.masters().contains(server) => {
                *map = Arc::new(map.with(server));
                true
            }
            _ => false,
        });
    }

    fn map(&self) -> Option<Arc<Map>> {
        self.map.borrow().clone()
    }

    /// Asks the servers in turn: the masters that are known, then those of the configuration.
    async fn look(&self, first: usize) -> Result<Map, Fault> {
        let known = self.map();
        let masters = known.iter().flat_map(|map| map.masters());
        let mut servers: Vec<&Node> = masters.collect();
        let turn = first % servers.len().max(1);
        servers.rotate_left(turn);
        servers.extend(&self.seeds);
        let mut fault = Fault::unreachable("no server of the cluster");
        for server in servers {
            match within(ANSWER_WITHIN, self.ask(server)).await {
                Ok(map) => return Ok(map),
                Err(error) => fault = error,
            }
        }
        fault.code = format!("cluster: {}", fault.code);
        Err(fault)
    }

    async fn ask(&self, server: &Node) -> Result<Map, Fault> {
        let mut connection = dial::plain(server, &self.links.address).await?;
        let mut question = redis::cmd("CLUSTER");
        let reply: Value = question.arg("SLOTS").query_async(&mut connection).await?;
        Map::read(reply, server).ok_or_else(|| Fault::unreachable("nobody has any slot"))
    }
}

async fn explore(atlas: Weak<Atlas>, _duty: OnDuty) {
    for round in rand::random_range(0..1024).. {
        let Some(looking) = atlas.upgrade() else {
            return;
        };
        match looking.look(round).await {
            Ok(map) => {
                looking.map.send_if_modified(|known| {
                    let news = known.as_deref() != Some(&map);
                    *known = Some(Arc::new(map));
                    news
                });
            }
            Err(fault) => {
                let cluster = &looking.links.address.topology;
                looking.links.warn(cluster, "cannot use the store", &fault);
            }
        }
        let every = if looking.map().is_some() {
            LOOK_EVERY
        } else {
            PAUSE
        };
        let pause = PAUSE.mul_f64(rand::random_range(0.5..=1.0));
        tokio::time::sleep(pause).await;
        tokio::select! {
            () = looking.doubted.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

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
        let reply = self.ask_each(&[command]).await?.pop();
        match reply.ok_or_else(unknown)? {
            Value::ServerError(error) => Err(Fault::from(RedisError::from(error))),
            reply => Ok(reply),
        }
    }

    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let commands: Vec<&Cmd> = commands.cmd_iter().collect();
        self.ask_each(&commands).await
    }

    /// Whoever asks has a deadline of their own; this ends what nobody waits for any more.
    async fn ask_each(&self, commands: &[&Cmd]) -> Result<Vec<Value>, Fault> {
        let mut replies = vec![Value::Nil; commands.len()];
        let mut open: Vec<(usize, Bound)> = (0..commands.len())
            .map(|place| (place, Bound::Home))
            .collect();
        let started = Instant::now();
        while started.elapsed() < GIVE_UP_AFTER {
            let batches = self.fan.sort(commands, open)?;
            let sending = batches.iter().map(|batch| self.fan.send(batch, commands));
            let answers = join_all(sending).await;
            open = Vec::new();
            for (batch, answer) in batches.iter().zip(answers) {
                for (place, reply) in batch.places.iter().zip(answer?) {
                    if let Some(elsewhere) = redirect(&reply, &batch.server) {
                        open.push((*place, self.fan.follow(elsewhere)));
                    } else if let Some(kept) = replies.get_mut(*place) {
                        *kept = reply;
                    }
                }
            }
            if open.is_empty() {
                return Ok(replies);
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

    async fn send(&self, batch: &Batch, commands: &[&Cmd]) -> Result<Vec<Value>, Fault> {
        let mut questions = redis::pipe();
        for command in batch.places.iter().filter_map(|place| commands.get(*place)) {
            if batch.asking {
                questions.cmd("ASKING");
            }
            questions.add_command((*command).clone());
        }
        let link = self.link(&batch.server);
        link.tried().await;
        let replies = link.ask_all(&questions).await?;
        if batch.asking {
            return Ok(replies.into_iter().skip(1).step_by(2).collect());
        }
        Ok(replies)
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
