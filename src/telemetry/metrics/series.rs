//! Series that requests use frequently, because a look-up by labels compares all of them. Series are
//! added and never removed, so a request finds one without a lock.

use std::hash::{BuildHasher, Hash};
use std::sync::OnceLock;

use foldhash::fast::RandomState;

/// Series of one metric, by the index of a label value that is known in advance.
#[derive(Debug)]
pub(super) struct SeriesTable<M>(Box<[OnceLock<M>]>);

impl<M> SeriesTable<M> {
    pub(super) fn new(values: usize) -> SeriesTable<M> {
        SeriesTable((0..values).map(|_| OnceLock::new()).collect())
    }

    /// Returns a series, which `look_up` finds the first time; `None` for an unknown index.
    pub(super) fn get(&self, index: usize, look_up: impl FnOnce() -> M) -> Option<&M> {
        Some(self.0.get(index)?.get_or_init(look_up))
    }
}

/// A few series of one metric, by values of which their labels are made. Bounded like the labels.
#[derive(Debug)]
pub(super) struct SeriesList<K, M>(OnceLock<Box<Entry<K, M>>>);

#[derive(Debug)]
struct Entry<K, M> {
    key: K,
    series: M,
    next: SeriesList<K, M>,
}

impl<K, M> Default for SeriesList<K, M> {
    fn default() -> SeriesList<K, M> {
        SeriesList(OnceLock::new())
    }
}

impl<K: Eq + Clone, M> SeriesList<K, M> {
    /// Returns a series, which `look_up` finds the first time.
    pub(super) fn get(&self, key: &K, look_up: impl Fn(&K) -> M) -> &M {
        let mut list = self;
        loop {
            // Another thread may add an entry with another key here.
            let entry = list.0.get_or_init(|| {
                Box::new(Entry {
                    key: key.clone(),
                    series: look_up(key),
                    next: SeriesList::default(),
                })
            });
            if entry.key == *key {
                return &entry.series;
            }
            list = &entry.next;
        }
    }
}

/// Any number of series of one metric, by values of which their labels are made.
#[derive(Debug)]
pub(super) struct SeriesMap<K, M> {
    lists: Box<[SeriesList<K, M>]>,
    hasher: RandomState,
}

impl<K, M> Default for SeriesMap<K, M> {
    fn default() -> SeriesMap<K, M> {
        SeriesMap {
            lists: (0..Self::LISTS).map(|_| SeriesList::default()).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl<K, M> SeriesMap<K, M> {
    const LISTS: usize = 64;
}

impl<K: Hash + Eq + Clone, M> SeriesMap<K, M> {
    /// Returns a series, which `look_up` finds the first time.
    pub(super) fn get(&self, key: &K, look_up: impl Fn(&K) -> M) -> Option<&M> {
        // Truncated: the low bits select the list.
        let hash = self.hasher.hash_one(key) as usize;
        let list = self.lists.get(hash % Self::LISTS)?;
        Some(list.get(key, look_up))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_series_is_looked_up_once() {
        let (list, map) = (SeriesList::default(), SeriesMap::default());
        let table = SeriesTable::new(100);
        let look_ups = AtomicUsize::new(0);
        let look_up = |key: usize| {
            look_ups.fetch_add(1, Ordering::Relaxed);
            key * 2
        };
        let read_all = || {
            for key in 0..100 {
                assert_eq!(*list.get(&key, |key| look_up(*key)), key * 2);
                assert_eq!(*map.get(&key, |key| look_up(*key)).unwrap(), key * 2);
                assert_eq!(*table.get(key, || look_up(key)).unwrap(), key * 2);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(read_all);
            }
        });
        let looked_up = look_ups.load(Ordering::Relaxed);
        assert_eq!(looked_up, 300);
        assert!(table.get(100, || look_up(100)).is_none());
    }
}
