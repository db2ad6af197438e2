//! Questions to the store, one by one and in batches.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::server::Server;
use super::world::{LinkKind, SERVERS, World};
use super::{MS, Micros};
use crate::auth::session::Millis;

/// `store.timeout`.
const DEADLINE: Micros = 100 * MS;

/// The replies of the servers to one batch.
struct BatchReplies<R, F> {
    replies: Vec<Option<R>>,
    outstanding: usize,
    on_complete: Option<F>,
}

impl<R, F> BatchReplies<R, F> {
    /// Takes one server's replies; gives all of them once they are complete, or none as soon as one
    /// server has not replied.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn take(
        &mut self,
        replies: Option<(Millis, Vec<(usize, R)>)>,
    ) -> Option<(F, Option<(Millis, Vec<R>)>)> {
        let Some((now, replies)) = replies else {
            return self.on_complete.take().map(|then| (then, None));
        };
        for (place, reply) in replies {
            self.replies[place] = Some(reply);
        }
        self.outstanding -= 1;
        if self.outstanding > 0 {
            return None;
        }
        let replies = std::mem::take(&mut self.replies);
        let replies = replies.into_iter().collect::<Option<Vec<R>>>();
        let all = replies.map(|replies| (now, replies));
        self.on_complete.take().map(|then| (then, all))
    }
}

impl World {
    /// Asks the store something: a later answer than in time is none.
    pub(super) fn request_store<A: 'static>(
        &mut self,
        g: usize,
        ask: impl FnOnce(&mut World) -> A + 'static,
        then: impl FnOnce(&mut World, Option<A>) + 'static,
    ) {
        let then = Rc::new(Cell::new(Some(then)));
        let late = Rc::clone(&then);
        let life = self.gateways[g].incarnation;
        self.send_to_server(g, LinkKind::Request, move |world| {
            let answer = ask(world);
            world.send_to_gateway(g, LinkKind::Request, move |world| {
                if world.gateways[g].incarnation == life
                    && let Some(then) = then.take()
                {
                    then(world, Some(answer));
                }
            });
        });
        self.later(g, DEADLINE, move |world| {
            if let Some(then) = late.take() {
                then(world, None);
            }
        });
    }

    /// Looks keys up in one batch. The servers of a cluster reply each at its own moment.
    pub(super) fn look_up<K: 'static, R: 'static>(
        &mut self,
        g: usize,
        keys: Vec<K>,
        read: impl Fn(&Server, &K, Millis) -> R + Clone + 'static,
        then: impl FnOnce(&mut World, Option<(Millis, Vec<R>)>) + 'static,
    ) {
        if keys.is_empty() {
            return then(self, Some((0, Vec::new())));
        }
        let servers = if self.clustered { SERVERS } else { 1 };
        let mut parts: Vec<Vec<(usize, K)>> = (0..servers).map(|_| Vec::new()).collect();
        let many = keys.len();
        for (place, key) in keys.into_iter().enumerate() {
            parts[place % servers].push((place, key));
        }
        parts.retain(|part| !part.is_empty());
        let gathered = Rc::new(RefCell::new(BatchReplies {
            replies: (0..many).map(|_| None).collect(),
            outstanding: parts.len(),
            on_complete: Some(then),
        }));
        for part in parts {
            let (read, gathered) = (read.clone(), Rc::clone(&gathered));
            self.request_store(
                g,
                move |world| {
                    let now = world.server.clock(world.now);
                    let read = |(place, key)| (place, read(&world.server, &key, now));
                    (now, part.into_iter().map(read).collect::<Vec<_>>())
                },
                move |world, replies| {
                    let done = gathered.borrow_mut().take(replies);
                    if let Some((then, all)) = done {
                        then(world, all);
                    }
                },
            );
        }
    }
}
