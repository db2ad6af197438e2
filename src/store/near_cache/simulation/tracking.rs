//! Simulated tracking connection, after `store/redis/links/tracking`, and refreshes of changed items.

use std::collections::HashSet;
use std::time::Instant;

use super::server::Server;
use super::world::{LinkKind, SERVERS, World};
use super::{MS, Micros, SECOND, simulated_now};
use crate::auth::session::{Millis, SessionId};
use crate::store::invalidation::{self, RefreshTask, TrackingEvent};
use crate::store::lookup::BatchLookup;
use crate::store::{CacheKey, SessionLookup, UserHash};

/// Interval of the heartbeats that confirm all invalidations to have arrived.
const CHECK_INTERVAL: Micros = 200 * MS;
/// Timeout of a heartbeat.
const CHECK_TIMEOUT: Micros = 200 * MS;
/// Timeout of the connection setup.
const OPEN_TIMEOUT: Micros = SECOND;

impl World {
    pub(super) fn open_tracking(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        gateway.tracking_id += 1;
        let id = gateway.tracking_id;
        self.send_to_server(g, LinkKind::Tracking(0), move |world| {
            world.add_tracking(g, id);
            world.send_to_gateway(g, LinkKind::Tracking(0), move |world| {
                if world.gateways[g].tracking_id == id {
                    world.gateways[g].open_tracking_id = id;
                    world.gateways[g].confirmed_by = [None; SERVERS];
                    world.apply_event(g, TrackingEvent::InvalidateAll);
                    let servers = if world.clustered { SERVERS } else { 1 };
                    for server in 0..servers {
                        world.start_check(g, id, server);
                    }
                }
            });
        });
        self.later(g, OPEN_TIMEOUT, move |world| {
            if world.gateways[g].open_tracking_id != id {
                world.tracking_lost(g, id);
            }
        });
    }

    /// Sends a heartbeat to a server.
    fn start_check(&mut self, g: usize, id: u64, server: usize) {
        if self.gateways[g].tracking_id != id {
            return;
        }
        self.near_cache(g);
        let sent_at = simulated_now();
        let gateway = &mut self.gateways[g];
        gateway.pending_check[server] += 1;
        let check = gateway.pending_check[server];
        self.send_to_server(g, LinkKind::Tracking(server), move |world| {
            let store_now = world.server.clock(world.now);
            world.send_to_gateway(g, LinkKind::Tracking(server), move |world| {
                let gateway = &world.gateways[g];
                if gateway.tracking_id == id && gateway.pending_check[server] == check {
                    world.finish_check(g, server, (sent_at, store_now));
                    world.later(g, CHECK_INTERVAL, move |world| {
                        world.start_check(g, id, server)
                    });
                    if let Some(time) = world.gateways[g].next_stall.take() {
                        world.stall_tracking(g, time);
                    }
                }
            });
        });
        self.later(g, CHECK_TIMEOUT, move |world| {
            world.time_out_check(g, id, server, check);
        });
    }

    /// Records a server's confirmation, and confirms up to the oldest one of all servers.
    fn finish_check(&mut self, g: usize, server: usize, confirmation: (Instant, Millis)) {
        let servers = if self.clustered { SERVERS } else { 1 };
        let (now, gateway) = (self.now, &mut self.gateways[g]);
        gateway.pending_check[server] += 1;
        gateway.set_clock(now, confirmation.1);
        gateway.confirmed_by[server] = Some(confirmation);
        let confirmed_by = &gateway.confirmed_by[..servers];
        if let Some(all) = confirmed_by.iter().copied().collect::<Option<Vec<_>>>() {
            let as_of = all.iter().map(|confirmation| confirmation.0).min().unwrap();
            let store_now = all.iter().map(|confirmation| confirmation.1).min().unwrap();
            self.apply_event(g, TrackingEvent::ConfirmedUpTo(as_of, store_now));
        }
    }

    /// Handles a missing reply to a heartbeat, once the tracking task is scheduled.
    fn time_out_check(&mut self, g: usize, id: u64, server: usize, check: u64) {
        let gateway = &self.gateways[g];
        if gateway.pending_check[server] != check {
            return;
        }
        if gateway.stalled_until > self.now {
            let stall = gateway.stalled_until - self.now;
            return self.later(g, stall, move |world| {
                world.time_out_check(g, id, server, check)
            });
        }
        self.tracking_lost(g, id);
    }

    /// Handles a failed connection; another one is opened after a pause.
    pub(super) fn tracking_lost(&mut self, g: usize, id: u64) {
        if self.gateways[g].tracking_id != id {
            return;
        }
        self.gateways[g].tracking_id += 1;
        if self.gateways[g].open_tracking_id == id {
            self.apply_event(g, TrackingEvent::Suspended);
        }
        let pause = self.rng.between(25 * MS, 400 * MS);
        self.later(g, pause, move |world| world.open_tracking(g));
    }

    pub(super) fn apply_event(&mut self, g: usize, event: TrackingEvent) {
        let clock = self.clock(g);
        let task = invalidation::apply_event(self.near_cache(g), event, || clock, |_| false);
        self.gateways[g].refresh_tasks.extend(task);
        self.refresh_next(g);
    }

    /// Runs the pending refreshes, one batch after another.
    fn refresh_next(&mut self, g: usize) {
        if self.gateways[g].is_refreshing || self.gateways[g].refresh_tasks.is_empty() {
            return;
        }
        let (mut items, mut up_to) = (Vec::new(), None);
        for task in std::mem::take(&mut self.gateways[g].refresh_tasks) {
            match task {
                RefreshTask::Changed(item) => items.push(item),
                RefreshTask::ConfirmUpTo(now) => up_to = Some(now),
            }
        }
        let distinct: HashSet<&CacheKey> = items.iter().collect();
        self.oracle.statistics.coalesced_changes += (items.len() - distinct.len()) as u64;
        self.gateways[g].is_refreshing = true;
        self.refresh_sessions(g, items, move |world, is_done| {
            world.gateways[g].is_refreshing = false;
            world.refresh_finished(g, up_to.filter(|_| is_done));
        });
    }

    /// Refreshes changed items as the store does: sessions, then tokens, then cut-offs.
    fn refresh_sessions(
        &mut self,
        g: usize,
        items: Vec<CacheKey>,
        then: impl FnOnce(&mut World, bool) + 'static,
    ) {
        let sessions = items.iter().filter_map(|item| match item {
            CacheKey::Session(id) => Some(*id),
            CacheKey::Token(_) | CacheKey::User(_) => None,
        });
        let sessions: Vec<SessionId> = sessions.collect();
        self.look_up_sessions(g, sessions, move |world, lookups| match lookups {
            Some(_) => world.refresh_tokens(g, items, then),
            None => then(world, false),
        });
    }

    fn refresh_tokens(
        &mut self,
        g: usize,
        items: Vec<CacheKey>,
        then: impl FnOnce(&mut World, bool) + 'static,
    ) {
        let tokens = items.iter().filter_map(|item| match item {
            CacheKey::Token(key) => Some(key.clone()),
            CacheKey::Session(_) | CacheKey::User(_) => None,
        });
        let lookup = BatchLookup::<String>::new(tokens, self.near_cache(g), |key| {
            CacheKey::Token(key.clone())
        });
        let keys = lookup.keys().to_vec();
        let read = |server: &Server, key: &String, _| server.is_blacklisted(key);
        self.look_up(g, keys, read, move |world, replies| {
            let Some((_, blacklisted)) = replies else {
                return then(world, false);
            };
            lookup
                .cache_replies(world.near_cache(g), blacklisted)
                .unwrap();
            world.refresh_cut_offs(g, &items, then);
        });
    }

    fn refresh_cut_offs(
        &mut self,
        g: usize,
        items: &[CacheKey],
        then: impl FnOnce(&mut World, bool) + 'static,
    ) {
        let users = items.iter().filter_map(|item| match item {
            CacheKey::User(hash) => Some(*hash),
            CacheKey::Session(_) | CacheKey::Token(_) => None,
        });
        let lookup =
            BatchLookup::<UserHash>::new(users, self.near_cache(g), |user| CacheKey::User(*user));
        let keys = lookup.keys().to_vec();
        let read = |server: &Server, user: &UserHash, _| server.cut_off(user);
        self.look_up(g, keys, read, move |world, cut_offs| {
            let is_done = cut_offs.is_some();
            if let Some((_, cut_offs)) = cut_offs {
                lookup.cache_replies(world.near_cache(g), cut_offs).unwrap();
            }
            then(world, is_done);
        });
    }

    /// Looks sessions up in one batch and caches the results, without an idle timeout.
    pub(super) fn look_up_sessions(
        &mut self,
        g: usize,
        ids: Vec<SessionId>,
        then: impl FnOnce(&mut World, Option<Vec<(SessionId, SessionLookup)>>) + 'static,
    ) {
        let lookup =
            BatchLookup::<SessionId>::new(ids, self.near_cache(g), |id| CacheKey::Session(*id));
        let keys = lookup.keys().to_vec();
        let read = |server: &Server, id: &SessionId, _| server.entry(*id);
        self.look_up(g, keys, read, move |world, entries| {
            let lookups = entries.map(|(now, entries)| {
                let cached = lookup.cache_replies(world.near_cache(g), entries, None, now, |_| {});
                cached.unwrap()
            });
            then(world, lookups);
        });
    }

    fn refresh_finished(&mut self, g: usize, up_to: Option<u64>) {
        if let Some(up_to) = up_to {
            self.gateways[g].confirmed_up_to = up_to;
        }
        self.refresh_next(g);
    }
}
