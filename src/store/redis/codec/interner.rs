//! What many sessions have alike is kept once: a browser's user agent, a kind of device, a list of roles.

use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::text_codec::decode_list;

/// Texts, and lists, that are known to be alike; a text has 512 characters at most.
const CAPACITY: u64 = 10_000;
/// What room is made for at the start.
const INITIAL_CAPACITY: usize = 100;

pub(in crate::store::redis) struct Interner {
    texts: Cache<Arc<str>, Arc<str>>,
    lists: Cache<Arc<str>, Arc<[String]>>,
}

impl Default for Interner {
    fn default() -> Interner {
        Interner {
            texts: Cache::with_weighter(INITIAL_CAPACITY, CAPACITY, UnitWeighter),
            lists: Cache::with_weighter(INITIAL_CAPACITY, CAPACITY, UnitWeighter),
        }
    }
}

impl Interner {
    pub(in crate::store::redis) fn intern_text(&self, text: &str) -> Arc<str> {
        self.texts.get(text).unwrap_or_else(|| {
            let new: Arc<str> = text.into();
            self.texts.insert(Arc::clone(&new), Arc::clone(&new));
            new
        })
    }

    /// The names that a list of them is written as. `None`: it is none.
    pub(in crate::store::redis) fn intern_list(&self, list: &str) -> Option<Arc<[String]>> {
        if let Some(known) = self.lists.get(list) {
            return Some(known);
        }
        let new: Arc<[String]> = decode_list(list)?.into();
        self.lists.insert(list.into(), Arc::clone(&new));
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn equal_values_share_one_allocation() {
        let alike = Interner::default();
        assert!(Arc::ptr_eq(
            &alike.intern_text("a"),
            &alike.intern_text("a")
        ));
        assert_eq!(&*alike.intern_text("b"), "b");
        let list = "\nadmin\neditor\n";
        let one = alike.intern_list(list).unwrap();
        assert_eq!(*one, ["admin".to_owned(), "editor".to_owned()]);
        assert!(Arc::ptr_eq(&one, &alike.intern_list(list).unwrap()));
        assert_eq!(alike.intern_list("no list"), None);
    }

    #[test]
    fn unique_texts_stay_within_capacity() {
        let alike = Interner::default();
        for n in 0..50_000 {
            alike.intern_text(&n.to_string());
        }
        assert!(alike.texts.len() as u64 <= CAPACITY);
    }
}
