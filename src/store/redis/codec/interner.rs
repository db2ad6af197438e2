//! Interner of values that many sessions share: user agents, device types, lists of roles.

use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::text_codec::decode_list;

/// Number of interned texts, and of lists; a text has at most 512 characters.
const CAPACITY: u64 = 10_000;
/// Number of entries that are allocated at the start.
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

    /// Decodes and interns a list of names; `None`: it is malformed.
    pub(in crate::store::redis) fn intern_list(&self, list: &str) -> Option<Arc<[String]>> {
        if let Some(interned) = self.lists.get(list) {
            return Some(interned);
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
        let interner = Interner::default();
        assert!(Arc::ptr_eq(
            &interner.intern_text("a"),
            &interner.intern_text("a")
        ));
        assert_eq!(&*interner.intern_text("b"), "b");
        let list = "\nadmin\neditor\n";
        let one = interner.intern_list(list).unwrap();
        assert_eq!(*one, ["admin".to_owned(), "editor".to_owned()]);
        assert!(Arc::ptr_eq(&one, &interner.intern_list(list).unwrap()));
        assert_eq!(interner.intern_list("no list"), None);
    }

    #[test]
    fn unique_texts_stay_within_capacity() {
        let interner = Interner::default();
        for n in 0..50_000 {
            interner.intern_text(&n.to_string());
        }
        assert!(interner.texts.len() as u64 <= CAPACITY);
    }
}
