//! Cache of metric series, because a look-up compares all labels and a request uses several series.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use prometheus::IntCounter;

/// Series of one metric, by the values of which their labels are made. Bounded like the labels.
#[derive(Debug)]
pub struct SeriesCache<K, M = IntCounter>(RwLock<HashMap<K, M, RandomState>>);

impl<K, M> Default for SeriesCache<K, M> {
    fn default() -> SeriesCache<K, M> {
        SeriesCache(RwLock::default())
    }
}

impl<K: Hash + Eq, M: Clone> SeriesCache<K, M> {
    /// Calls `act` with a series, which `look_up` finds the first time.
    pub fn with<R>(&self, key: K, look_up: impl FnOnce(&K) -> M, act: impl FnOnce(&M) -> R) -> R {
        if let Some(series) = self.0.read().get(&key) {
            return act(series);
        }
        let series = look_up(&key);
        let result = act(&series);
        self.0.write().insert(key, series);
        result
    }
}
