//! Permits that one gateway has taken from one counter of the store, to decide without asking it.
//!
//! **A permit is spent in the store when it is granted.** So the store's count never exceeds the limit,
//! whatever gateways do. A permit is good for a short time (a tenth of the window, a second at most), counted from before the store
//! was asked. What is not used flows back; what a gateway had that died leaves the window like any
//! other admission.
//!
//! **The bound.** A request is let through by a permit at most one validity after the store has counted
//! it. Let *O* be the permits that the fleet holds at the beginning of an interval of one window. The
//! interval admits what the store counts in it, and at most *O* more:
//!
//! * `sliding_log`: at most `limit + O`;
//! * `sliding_window`: at most `2·limit - 1 + O` ([its own bound](super::sliding_window)), and in a window
//!   that is aligned to the store's clock at most `limit + O`;
//! * `token_bucket`: in *t* at most `burst + limit·t/window + O`.
//!
//! The store never grants a gateway more than brings what it holds to one part in `2·gateways` of what is
//! left, or to 1. So *O* is at most half of the limit (of a bucket, its burst) and one for each gateway;
//! and a gateway asks for no more than it expects to use while they are good. Near the limit batches
//! are single permits that are used at once: it becomes exact.
//!
//! **Giving back is conservative.** Of a window, a permit is taken from the window that it was counted in.
//! Of a log, the oldest admission goes: those that stay are no older. A bucket drains meanwhile: what has
//! drained since is not given back a second time.

use super::sliding_window::SlidingWindow;
use super::{Limit, Micros, Rule};

/// A permit is good for no longer.
const LONGEST: Micros = 1_000_000;
/// Whoever asks for a batch is waited for no longer.
const PATIENCE: Micros = 1_000_000;
/// A refusal that lasts is asked about again after so long: others may have given permits back.
const CHECK: Micros = 1_000_000;
/// A counter that nobody has asked for that long is forgotten.
const IDLE: Micros = 2_000_000;
/// A batch is at most as many, or what is used in a sixteenth of a second where that is more.
const BATCH: u64 = 64;
/// How demand is measured: requests within about a second.
const SECOND: Rule = Rule {
    limit: 1 << 40,
    width: 1000,
    burst: 0,
};

/// How long a permit of this limit is good for: a tenth of the window, and a second at most.
fn validity(limit: &Limit) -> Micros {
    let tenth = limit.window.as_micros() / 10;
    Micros::try_from(tenth).unwrap_or(LONGEST).min(LONGEST)
}

/// A gateway holds at most one part of so many of what is left.
pub fn parts(gateways: u64) -> u64 {
    gateways.max(1).saturating_mul(2)
}

/// What a lease has to know to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub validity: Micros,
    /// See [`parts`].
    pub parts: u64,
}

impl Terms {
    pub fn of(limit: &Limit, gateways: u64) -> Terms {
        Terms {
            validity: validity(limit),
            parts: parts(gateways),
        }
    }
}

/// One request that was let through by a permit, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    until: Micros,
    counted_at: Micros,
}

/// A question to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// How many permits are wished for.
    pub want: u64,
    /// How many are held already. With none, at least one is granted if one is left.
    pub held: u64,
    /// Whether others wait for its answer before they ask for a batch.
    pub leads: bool,
}

impl Ask {
    /// For one request, at once.
    pub const EXACT: Ask = Ask {
        want: 1,
        held: 0,
        leads: false,
    };
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Permit(Permit),
    /// The store has refused, and said that this will last.
    Refused,
    /// Nothing is held: the store has to be asked.
    Ask(Ask),
}

/// What the store says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub granted: u64,
    /// When that was said, by the store's clock: answers may overtake each other.
    pub said_at: Micros,
    /// As of when what was granted is counted, by the same clock.
    pub counted_at: Micros,
    /// What is left besides.
    pub left: u64,
    /// Until the limit is whole again.
    pub whole_after: Micros,
    /// Until one more would be admitted; zero: one would be.
    pub wait: Micros,
}

/// Permits to give back, and when the store counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unused {
    pub many: u64,
    pub counted_at: Micros,
}

#[derive(Debug, Clone, Copy, Default)]
struct Batch {
    many: u64,
    until: Micros,
    counted_at: Micros,
}

/// One counter's permits on one gateway. Time is the gateway's own, and steady; what the store counted
/// is dated by the store's.
#[derive(Debug, Default)]
pub struct Lease {
    /// The oldest first, which is used up first.
    batches: [Batch; 4],
    unused: Vec<Unused>,
    demand: SlidingWindow,
    touched: Micros,
    /// Until when somebody is trusted to be asking.
    asking_until: Micros,
    refused_until: Micros,
    refusal_checked: Micros,
    left: u64,
    whole_at: Micros,
    /// When the store said so, by its clock; 0: it has not said anything yet.
    heard_at: Micros,
    /// When the store last granted a single permit while somebody asks for a batch, and what was left.
    meanwhile: Option<(Micros, u64)>,
}

impl Lease {
    /// Takes a permit for one request, or says what has to be done for one.
    pub fn take(&mut self, terms: Terms, now: Micros) -> Taken {
        self.touched = now;
        self.demand.wait(SECOND, now);
        self.demand.spend();
        self.expire(now);
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.many > 0) {
            batch.many -= 1;
            return Taken::Permit(Permit {
                until: batch.until,
                counted_at: batch.counted_at,
            });
        }
        let asking = self.is_asking(now);
        if now < self.refused_until && (asking || now < self.refusal_checked + CHECK) {
            return Taken::Refused;
        }
        if asking {
            return Taken::Ask(Ask::EXACT);
        }
        self.asking_until = now + PATIENCE;
        Taken::Ask(Ask {
            want: self.target(terms),
            held: 0,
            leads: true,
        })
    }

    /// What to ask for before the permits are used up, if it is time.
    pub fn refill(&mut self, terms: Terms, now: Micros) -> Option<Ask> {
        if self.is_asking(now) || now < self.refused_until || self.left == 0 {
            return None;
        }
        let held = self.held();
        let target = self.target(terms).min((self.left / terms.parts).max(1));
        if target < 2 || held * 2 > target {
            return None;
        }
        self.asking_until = now + PATIENCE;
        Some(Ask {
            want: target - held,
            held,
            leads: true,
        })
    }

    /// Takes in the answer to a question that was asked at `asked`, and of which `used` permits are
    /// used already.
    pub fn answered(
        &mut self,
        terms: Terms,
        ask: Ask,
        answer: Answer,
        used: u64,
        (asked, now): (Micros, Micros),
    ) {
        if ask.leads {
            self.led(answer, now);
        } else if self.is_asking(now) && answer.wait == 0 {
            // What is left when the batch has come its own answer will tell.
            self.left = self.left.saturating_sub(answer.granted);
            self.meanwhile = self.meanwhile.max(Some((answer.said_at, answer.left)));
        } else {
            self.heard(answer, now);
        }
        self.expire(now);
        let new = Batch {
            many: answer.granted.saturating_sub(used),
            until: asked.saturating_add(terms.validity),
            counted_at: answer.counted_at,
        };
        if new.many == 0 {
            return;
        }
        // Those in use come first, in their order; where there is no room the oldest goes.
        self.batches.sort_by_key(|batch| batch.many == 0);
        if self.batches.iter().all(|batch| batch.many > 0) {
            let [oldest, ..] = self.batches;
            self.give_back(oldest);
            self.batches.rotate_left(1);
            let [.., last] = &mut self.batches;
            *last = Batch::default();
        }
        if let Some(free) = self.batches.iter_mut().find(|batch| batch.many == 0) {
            *free = new;
        }
        self.expire(now);
    }

    /// Takes note of the answer to who asked for a batch, which others have overtaken that asked for a
    /// single permit.
    fn led(&mut self, answer: Answer, now: Micros) {
        self.asking_until = 0;
        let later = self.meanwhile.take();
        let later = later.filter(|(said_at, _)| *said_at > answer.said_at);
        let left = later.map_or(answer.left, |(_, left)| left);
        self.heard(Answer { left, ..answer }, now);
    }

    /// Takes note of what the store says of the counter, unless it has said something later.
    pub fn heard(&mut self, answer: Answer, now: Micros) {
        if answer.said_at < self.heard_at {
            return;
        }
        self.heard_at = answer.said_at;
        self.left = answer.left;
        self.whole_at = now.saturating_add(answer.whole_after);
        self.refused_until = match answer.wait {
            0 => 0,
            wait => now.saturating_add(wait),
        };
        self.refusal_checked = now;
    }

    /// A question was not answered, or not asked.
    pub fn withdrawn(&mut self, ask: Ask) {
        if ask.leads {
            self.asking_until = 0;
        }
    }

    /// Puts a permit back that was not needed.
    pub fn put_back(&mut self, permit: Permit, now: Micros) {
        let same = |batch: &&mut Batch| {
            (batch.until, batch.counted_at) == (permit.until, permit.counted_at)
        };
        match self.batches.iter_mut().find(same) {
            Some(batch) if now < permit.until => batch.many += 1,
            _ => self.unused.push(Unused {
                many: 1,
                counted_at: permit.counted_at,
            }),
        }
    }

    /// Hands over what is to be given back.
    pub fn unused(&mut self, now: Micros) -> Vec<Unused> {
        self.expire(now);
        std::mem::take(&mut self.unused)
    }

    /// Gives up everything, and hands it over to be given back.
    pub fn retire(&mut self) -> Vec<Unused> {
        for batch in std::mem::take(&mut self.batches) {
            self.give_back(batch);
        }
        std::mem::take(&mut self.unused)
    }

    /// What a client is told: how many more requests there are, and how long until the limit is whole.
    /// `None`: the store has not said anything yet.
    pub fn standing(&self, now: Micros) -> Option<(u64, Micros)> {
        let left = self.left.saturating_add(self.held());
        (self.heard_at > 0).then(|| (left, self.whole_at.saturating_sub(now)))
    }

    /// How long until the store would admit one more.
    pub fn refused_for(&self, now: Micros) -> Micros {
        self.refused_until.saturating_sub(now)
    }

    /// Whether somebody is on the way to the store for a batch.
    pub fn is_asking(&self, now: Micros) -> bool {
        now < self.asking_until
    }

    /// Whether there is nothing left to remember.
    pub fn is_idle(&self, now: Micros) -> bool {
        let quiet = now >= self.touched.saturating_add(IDLE);
        quiet && self.held() == 0 && self.unused.is_empty()
    }

    /// How many permits are held.
    pub fn held(&self) -> u64 {
        self.batches.iter().map(|batch| batch.many).sum()
    }

    /// What is expected to be used while it is good. A counter that is asked once a second gets the
    /// one permit that is needed.
    fn target(&self, terms: Terms) -> u64 {
        let a_second = self.demand.count(SECOND);
        if a_second < 2 {
            return 1;
        }
        let expected = a_second.saturating_mul(terms.validity) / 1_000_000;
        expected.clamp(1, BATCH.max(a_second / 16))
    }

    fn expire(&mut self, now: Micros) {
        for place in 0..self.batches.len() {
            let Some(batch) = self.batches.get_mut(place) else {
                continue;
            };
            if batch.many > 0 && now >= batch.until {
                let over = std::mem::take(batch);
                self.give_back(over);
            }
        }
    }

    fn give_back(&mut self, batch: Batch) {
        let Batch {
            many, counted_at, ..
        } = batch;
        if many > 0 {
            self.unused.push(Unused { many, counted_at });
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod fleet;
#[cfg(test)]
#[expect(clippy::panic, reason = "tests")]
mod tests;
