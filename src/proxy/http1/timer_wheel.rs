//! Deadlines of a worker's connections.
//!
//! Arming a deadline is a store: its entry in the wheel is moved, dropped or fired only when its bucket
//! comes up, so a connection is entered about once per timeout and not once per read.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// The resolution of all deadlines.
pub const TICK: Duration = Duration::from_millis(50);
const TICKS_PER_SECOND: u64 = 1000 / TICK.subsec_millis() as u64;
const MAX_TICKS: u32 = u32::MAX / 2;
/// Number of buckets; a later deadline is moved on when the last of them comes up.
const BUCKETS: usize = 512;
/// Not armed, or not in the wheel.
const NONE: u32 = 0;

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::default());
}

/// A number of ticks that last at least as long as the duration that they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u32);

impl Ticks {
    /// Rounds up, and adds the tick that has begun already.
    pub const fn of(duration: Duration) -> Ticks {
        let seconds = duration.as_secs().saturating_mul(TICKS_PER_SECOND);
        let rest = duration.subsec_millis().div_ceil(TICK.subsec_millis());
        let ticks = seconds.saturating_add(rest as u64 + 1);
        if ticks > MAX_TICKS as u64 {
            return Ticks(MAX_TICKS);
        }
        Ticks(ticks as u32)
    }

    /// The tick at which as many have passed.
    pub fn from_now(self) -> u32 {
        now().saturating_add(self.0)
    }
}

/// A point in time of which one task is notified. It can be armed again at any time, for an earlier
/// or a later one.
#[derive(Debug, Default)]
pub struct Deadline(Arc<Entry>);

#[derive(Debug, Default)]
struct Entry {
    /// The tick at which it passes.
    due: AtomicU32,
    /// The tick of the bucket that holds it; references in other buckets are stale.
    bucket: AtomicU32,
    passed: AtomicBool,
    waker: AtomicWaker,
}

struct Wheel {
    now: u32,
    buckets: Vec<Vec<Arc<Entry>>>,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel {
            now: NONE + 1,
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
        }
    }
}

/// This worker's current tick.
pub fn now() -> u32 {
    WHEEL.with_borrow(|wheel| wheel.now)
}

impl Deadline {
    /// Sets the deadline, in place of an earlier one.
    pub fn arm(&self, after: Ticks) {
        let entry = &*self.0;
        entry.passed.store(false, Ordering::Relaxed);
        WHEEL.with_borrow_mut(|wheel| {
            let due = wheel.now.saturating_add(after.0);
            entry.due.store(due, Ordering::Relaxed);
            let bucket = entry.bucket.load(Ordering::Relaxed);
            if bucket == NONE || bucket > due {
                wheel.enter(&self.0, due);
            }
        });
    }

    /// Sets the deadline, unless it is armed for an earlier time or has passed.
    pub fn arm_sooner(&self, after: Ticks) {
        let due = self.0.due.load(Ordering::Relaxed);
        let has_passed = self.0.passed.load(Ordering::Relaxed);
        if !has_passed && (due == NONE || due > now().saturating_add(after.0)) {
            self.arm(after);
        }
    }

    /// Removes the deadline.
    pub fn disarm(&self) {
        self.0.due.store(NONE, Ordering::Relaxed);
        self.0.passed.store(false, Ordering::Relaxed);
    }

    /// Whether it is armed and has not passed.
    pub fn is_armed(&self) -> bool {
        self.0.due.load(Ordering::Relaxed) != NONE
    }

    /// Resolves when the deadline has passed, and stays so until it is armed or disarmed.
    pub fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The wheel turns on this thread: nothing happens between the two.
        if self.0.passed.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        Poll::Pending
    }
}

impl Drop for Deadline {
    /// Releases the task: its entry stays in the wheel until its bucket comes up.
    fn drop(&mut self) {
        self.disarm();
        self.0.waker.take();
    }
}

impl Wheel {
    fn enter(&mut self, entry: &Arc<Entry>, due: u32) {
        let ahead = due.saturating_sub(self.now).clamp(1, BUCKETS as u32 - 1);
        let bucket = self.now + ahead;
        entry.bucket.store(bucket, Ordering::Relaxed);
        if let Some(entries) = self.buckets.get_mut(bucket as usize % BUCKETS) {
            entries.push(Arc::clone(entry));
        }
    }

    /// Moves on by one tick. Returns the tasks that are to be woken.
    fn advance(&mut self) -> Vec<Arc<Entry>> {
        self.now += 1;
        let now = self.now;
        let bucket = self.buckets.get_mut(now as usize % BUCKETS);
        let mut entries = bucket.map(std::mem::take).unwrap_or_default();
        entries.retain(|entry| entry.bucket.load(Ordering::Relaxed) == now);
        entries.retain(|entry| {
            entry.bucket.store(NONE, Ordering::Relaxed);
            let due = entry.due.load(Ordering::Relaxed);
            if due > now {
                self.enter(entry, due);
            }
            // Dropped entries were disarmed.
            let passed = due != NONE && due <= now;
            if passed {
                entry.due.store(NONE, Ordering::Relaxed);
                entry.passed.store(true, Ordering::Relaxed);
            }
            passed
        });
        entries
    }
}

/// Moves this worker's wheel on by one tick.
fn advance() {
    let passed = WHEEL.with_borrow_mut(Wheel::advance);
    for entry in passed {
        entry.waker.wake();
    }
}

/// Wakes every task that waits for a deadline of this worker.
fn wake_all() {
    WHEEL.with_borrow(|wheel| {
        for entry in wheel.buckets.iter().flatten() {
            entry.waker.wake();
        }
    });
}

/// Turns this worker's wheel, forever. When the gateway drains, every waiting task is woken once, so
/// that idle connections need not watch for it.
pub async fn run(mut drain: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    // Ticks that are missed never happen: a deadline may pass late, and never early.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => advance(),
            stopped = drain.wait_for(|stop| *stop) => {
                if stopped.is_ok() {
                    wake_all();
                }
                break;
            }
        }
    }
    loop {
        tick.tick().await;
        advance();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_passed(deadline: &Deadline, waker: &Waker) -> bool {
        deadline
            .poll_passed(&mut Context::from_waker(waker))
            .is_ready()
    }

    #[derive(Debug, Clone)]
    enum Action {
        Arm(u64),
        ArmSooner(u64),
        Disarm,
        Wait(u32),
    }

    fn action() -> impl Strategy<Value = Action> {
        let millis = prop_oneof![0..500_u64, 20_000..30_000_u64, 60_000..80_000_u64];
        prop_oneof![
            3 => millis.clone().prop_map(Action::Arm),
            1 => millis.prop_map(Action::ArmSooner),
            1 => Just(Action::Disarm),
            6 => (0..700_u32).prop_map(Action::Wait),
        ]
    }

    proptest! {
        /// Compares a deadline with a clock that counts ticks: none is early, none is lost, and none is
        /// more than two ticks late, whatever was armed before.
        #[test]
        fn deadline_passes_at_its_time(actions in prop::collection::vec(action(), 1..40)) {
            let wakes = Arc::new(Counter::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let deadline = Deadline::default();
            let tick = TICK.as_millis() as u64;
            // The earliest time at which it may pass, in milliseconds of the simulated clock.
            let (mut at, mut expected) = (0, None);
            for action in actions {
                match action {
                    Action::Arm(millis) => {
                        deadline.arm(Ticks::of(Duration::from_millis(millis)));
                        expected = Some(at + millis);
                    }
                    Action::ArmSooner(millis) => {
                        let passed = is_passed(&deadline, &waker);
                        deadline.arm_sooner(Ticks::of(Duration::from_millis(millis)));
                        let sooner = expected.map_or(at + millis, |it: u64| it.min(at + millis));
                        expected = if passed { expected } else { Some(sooner) };
                    }
                    Action::Disarm => {
                        deadline.disarm();
                        expected = None;
                    }
                    Action::Wait(ticks) => for _ in 0..ticks {
                        advance();
                        at += tick;
                        let passed = is_passed(&deadline, &waker);
                        match expected {
                            None => prop_assert!(!passed),
                            Some(due) if passed => prop_assert!(at >= due, "early"),
                            Some(due) => prop_assert!(at <= due + 2 * tick, "late"),
                        }
                    },
                }
            }
        }
    }

    #[test]
    fn passed_deadline_wakes_its_task_once() {
        let wakes = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let deadline = Deadline::default();
        deadline.arm(Ticks::of(TICK));
        assert!(!is_passed(&deadline, &waker));
        advance();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        advance();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(is_passed(&deadline, &waker) && !deadline.is_armed());
        wake_all();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn dropped_deadline_releases_its_task() {
        let wakes = Arc::new(Counter::default());
        let deadline = Deadline::default();
        deadline.arm(Ticks::of(Duration::from_secs(60)));
        assert!(!is_passed(&deadline, &Waker::from(Arc::clone(&wakes))));
        assert_eq!(Arc::strong_count(&wakes), 2);
        drop(deadline);
        assert_eq!(Arc::strong_count(&wakes), 1);
        for _ in 0..BUCKETS {
            advance();
        }
        let entries = WHEEL.with_borrow(|wheel| wheel.buckets.iter().flatten().count());
        assert_eq!(entries, 0);
    }

    #[test]
    fn ten_thousand_busy_connections_are_visited_rarely() {
        const CONNECTIONS: usize = 10_000;
        let deadlines: Vec<_> = (0..CONNECTIONS).map(|_| Deadline::default()).collect();
        let (mut visits, minute, second) = (0, 1200, 20);
        for tick in 0..minute {
            // Each serves a request every second.
            for deadline in deadlines.iter().skip(tick % second).step_by(second) {
                deadline.arm(Ticks::of(Duration::from_secs(60)));
            }
            visits += WHEEL.with_borrow(|wheel| {
                let next = (wheel.now + 1) as usize % BUCKETS;
                wheel.buckets.get(next).map_or(0, Vec::len)
            });
            advance();
        }
        // A visit takes less than a microsecond: less than 1 % of one CPU is 600,000 of them.
        assert!(
            (CONNECTIONS..=3 * CONNECTIONS).contains(&visits),
            "{visits}"
        );
    }

    #[test]
    fn armed_connection_costs_one_entry_per_timeout() {
        let deadline = Deadline::default();
        for _ in 0..1000 {
            deadline.arm(Ticks::of(Duration::from_secs(60)));
            advance();
        }
        let entries = WHEEL.with_borrow(|wheel| wheel.buckets.iter().flatten().count());
        assert_eq!(entries, 1);
    }
}
