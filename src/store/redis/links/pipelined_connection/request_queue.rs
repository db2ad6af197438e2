//! Requests of one connection, in the order of their replies.
//!
//! A request whose caller is gone keeps its place until its replies have arrived: otherwise they would
//! reach the next caller.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use redis::Value;
use slab::Slab;
use smallvec::SmallVec;

/// Number of requests without all of their replies at which further callers wait.
const MAX_REQUESTS: usize = 16_384;
/// Number of unsent bytes at which further callers wait.
const MAX_UNSENT: usize = 8 << 20;
/// Capacity that an empty buffer keeps, in bytes.
pub(super) const RETAINED_CAPACITY: usize = 64 << 10;

/// The replies to one request; without an allocation for a single command.
pub(super) type Replies = SmallVec<[Value; 1]>;

#[derive(Default)]
pub(super) struct RequestQueue {
    /// The slots are reused.
    requests: Slab<Request>,
    /// The packed commands that have not been taken to be written.
    packed: Vec<u8>,
    /// Their requests, in order, and the packed length of each.
    unsent: VecDeque<(usize, usize)>,
    /// The requests whose commands have been taken, in order.
    awaited: VecDeque<usize>,
}

/// One or several commands of a caller.
struct Request {
    replies: Replies,
    /// Number of replies that have not arrived.
    missing: usize,
    caller: Caller,
}

enum Caller {
    /// Without a waker until it has been polled.
    Waiting(Option<Waker>),
    Gone,
}

impl RequestQueue {
    pub(super) fn is_full(&self) -> bool {
        self.unsent.len() + self.awaited.len() >= MAX_REQUESTS || self.packed.len() >= MAX_UNSENT
    }

    /// Appends a request with the given number of commands, which `pack` writes.
    pub(super) fn push(&mut self, count: usize, pack: impl Fn(&mut Vec<u8>)) -> usize {
        let start = self.packed.len();
        pack(&mut self.packed);
        let request = self.requests.insert(Request {
            replies: Replies::with_capacity(count),
            missing: count,
            caller: Caller::Waiting(None),
        });
        let length = self.packed.len() - start;
        self.unsent.push_back((request, length));
        request
    }

    /// Moves the unsent commands to a buffer, except those whose callers are gone.
    pub(super) fn take_unsent(&mut self, outgoing: &mut Vec<u8>) {
        let mut packed = self.packed.as_slice();
        for (key, length) in self.unsent.drain(..) {
            let (commands, rest) = packed.split_at_checked(length).unwrap_or_default();
            packed = rest;
            if self.requests.get(key).is_some_and(Request::is_wanted) {
                outgoing.extend_from_slice(commands);
                self.awaited.push_back(key);
            } else {
                self.requests.try_remove(key);
            }
        }
        self.packed.clear();
        self.packed.shrink_to(RETAINED_CAPACITY);
    }

    /// Assigns a reply to its request; returns the caller to wake if it was the last one.
    pub(super) fn accept(&mut self, reply: Value) -> io::Result<Option<Waker>> {
        let key = self.awaited.front().copied();
        let request = key.and_then(|key| Some((key, self.requests.get_mut(key)?)));
        let Some((key, request)) = request else {
            return Err(io::Error::other("a reply without a command"));
        };
        request.missing -= 1;
        if request.is_wanted() {
            request.replies.push(reply);
        }
        if request.missing > 0 {
            return Ok(None);
        }
        self.awaited.pop_front();
        let caller = request.take_waker();
        if !request.is_wanted() {
            self.requests.try_remove(key);
        }
        Ok(caller)
    }

    /// Removes a request with all of its replies; `None`: some are missing.
    pub(super) fn take(&mut self, key: usize) -> Option<Replies> {
        self.requests
            .get(key)
            .filter(|request| request.missing == 0)?;
        Some(self.requests.try_remove(key)?.replies)
    }

    pub(super) fn set_waker(&mut self, key: usize, waker: &Waker) {
        if let Some(request) = self.requests.get_mut(key) {
            request.caller = Caller::Waiting(Some(waker.clone()));
        }
    }

    /// Records that the caller of a request is gone.
    pub(super) fn abandon(&mut self, key: usize) {
        match self.requests.get_mut(key) {
            Some(request) if request.missing > 0 => request.caller = Caller::Gone,
            _ => drop(self.requests.try_remove(key)),
        }
    }

    #[cfg(test)]
    pub(super) fn request_count(&self) -> usize {
        self.requests.len()
    }

    #[cfg(test)]
    pub(super) fn unsent_bytes(&self) -> usize {
        self.packed.len()
    }

    /// Discards what is unsent or awaited; returns the callers to wake.
    pub(super) fn close(&mut self) -> Vec<Waker> {
        self.packed = Vec::new();
        self.unsent = VecDeque::new();
        self.awaited = VecDeque::new();
        let requests = self.requests.iter_mut();
        requests
            .filter_map(|(_, request)| request.take_waker())
            .collect()
    }
}

impl Request {
    fn is_wanted(&self) -> bool {
        !matches!(self.caller, Caller::Gone)
    }

    fn take_waker(&mut self) -> Option<Waker> {
        match &mut self.caller {
            Caller::Waiting(waker) => waker.take(),
            Caller::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_is_full_at_either_limit() {
        let mut queue = RequestQueue::default();
        let mut outgoing = Vec::new();
        for _ in 0..MAX_REQUESTS {
            assert!(!queue.is_full());
            queue.push(1, |_| ());
        }
        assert!(queue.is_full());
        queue.take_unsent(&mut outgoing);
        assert!(queue.is_full());
        assert!(queue.accept(Value::Nil).is_ok());
        assert!(!queue.is_full());
        let mut queue = RequestQueue::default();
        queue.push(1, |packed| packed.resize(MAX_UNSENT, 0));
        assert!(queue.is_full());
        queue.take_unsent(&mut outgoing);
        assert_eq!((queue.is_full(), outgoing.len()), (false, MAX_UNSENT));
    }
}
