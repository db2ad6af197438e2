//! What many sessions have alike is kept once: a browser's user agent, a kind of device, a list of roles.

use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::names::names;

/// Texts, and lists, that are known to be alike; a text has 512 characters at most.
const KNOWN: u64 = 10_000;
/// What room is made for at the start.
const EXPECTED: usize = 100;

pub(super) struct Alike {
    texts: Cache<Arc<str>, Arc<str>>,
    lists: Cache<Arc<str>, Arc<[String]>>,
}

impl Default for Alike {
    fn default() -> Alike {
        Alike {
            texts: Cache::with_weighter(EXPECTED, KNOWN, UnitWeighter),
            lists: Cache::with_weighter(EXPECTED, KNOWN, UnitWeighter),
        }
    }
}

impl Alike {
    pub(super) fn text(&self, text: &str) -> Arc<str> {
        self.texts.get(text).unwrap_or_else(|| {
            let new: Arc<str> = text.into();
            self.texts.insert(Arc::clone(&new), Arc::clone(&new));
            new
        })
    }

    /// The names that a list of them is written as. `None`: it is none.
    pub(super) fn names(&self, list: &str) -> Option<Arc<[String]>> {
        if let Some(known) = self.lists.get(list) {
            return Some(known);
        }
        let new: Arc<[String]> = names(list)?.into();
        self.lists.insert(list.into(), Arc::clone(&new));
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn equals_are_one() {
        let alike = Alike::default();
        assert!(Arc::ptr_eq(&alike.text("a"), &alike.text("a")));
        assert_eq!(&*alike.text("b"), "b");
        let list = "\nadmin\neditor\n";
        let one = alike.names(list).unwrap();
        assert_eq!(*one, ["admin".to_owned(), "editor".to_owned()]);
        assert!(Arc::ptr_eq(&one, &alike.names(list).unwrap()));
        assert_eq!(alike.names("no list"), None);
    }

    #[test]
    fn texts_that_nobody_else_has_do_not_pile_up() {
        let alike = Alike::default();
        for n in 0..50_000 {
            alike.text(&n.to_string());
        }
        assert!(alike.texts.len() as u64 <= KNOWN);
    }
}
