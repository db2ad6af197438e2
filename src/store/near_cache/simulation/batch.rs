//! Requests to the simulated store, single and batched.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::server::Server;
use super::world::{LinkKind, SERVERS, World};
use super::{MS, Micros};
use crate::auth::session::Millis;

/// `store.timeout`.
const DEADLINE: Micros = 100 * MS;

/// Replies of the servers to one batch.
struct BatchReplies<R, F> {
    replies: Vec<Option<R>>,
    outstanding: usize,
    on_complete: Option<F>,
}

impl<R, F> BatchReplies<R, F> {
    /// Adds one server's replies. Returns all replies once they are complete, or `None` in their
    /// place as soon as one server has timed out.
    #[expect(clippy::type_complexity, reason = "the caller destructures it at once")]
    fn add(
        &mut self,
        replies: Option<(Millis, Vec<(usize, R)>)>,
    ) -> Option<(F, Option<(Millis, Vec<R>)>)> {
        let Some((now, replies)) = replies else {
            return self.on_complete.take().map(|then| (then, None));
        };
        for (index, reply) in replies {
            self.replies[index] = Some(reply);
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
    /// Sends a request to the store; a reply after the deadline counts as none.
    pub(super) fn request_store<R: 'static>(
        &mut self,
        g: usize,
        request: impl FnOnce(&mut World) -> R + 'static,
        then: impl FnOnce(&mut World, Option<R>) + 'static,
    ) {
        let then = Rc::new(Cell::new(Some(then)));
        let on_timeout = Rc::clone(&then);
        let incarnation = self.gateways[g].incarnation;
        self.send_to_server(g, LinkKind::Request, move |world| {
            let reply = request(world);
            world.send_to_gateway(g, LinkKind::Request, move |world| {
                if world.gateways[g].incarnation == incarnation
                    && let Some(then) = then.take()
                {
                    then(world, Some(reply));
                }
            });
        });
        self.later(g, DEADLINE, move |world| {
            if let Some(then) = on_timeout.take() {
                then(world, None);
            }
        });
    }

    /// Looks keys up in one batch; the servers of a cluster reply independently.
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
        let count = keys.len();
        for (index, key) in keys.into_iter().enumerate() {
            parts[index % servers].push((index, key));
        }
        parts.retain(|part| !part.is_empty());
        let batch = Rc::new(RefCell::new(BatchReplies {
            replies: (0..count).map(|_| None).collect(),
            outstanding: parts.len(),
            on_complete: Some(then),
        }));
        for part in parts {
            let (read, batch) = (read.clone(), Rc::clone(&batch));
            self.request_store(
                g,
                move |world| {
                    let now = world.server.clock(world.now);
                    let read = |(index, key)| (index, read(&world.server, &key, now));
                    (now, part.into_iter().map(read).collect::<Vec<_>>())
                },
                move |world, replies| {
                    let complete = batch.borrow_mut().add(replies);
                    if let Some((then, all)) = complete {
                        then(world, all);
                    }
                },
            );
        }
    }
}
