//! The texts of a request that its log line and its decision need.

use std::cell::RefCell;

/// Number of texts whose memory a worker keeps.
const MAX_KEPT: usize = 256;
/// A longer text is freed instead.
const MAX_CAPACITY: usize = 512;

thread_local! {
    static FREE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The host and the path of a request, in one piece of memory.
#[derive(Debug, Default)]
pub struct RequestText {
    /// The host, its name unless it begins with it, and the path.
    text: String,
    /// The end of the host; 0: the request names none.
    host: usize,
    name: (usize, usize),
    path: usize,
}

impl RequestText {
    pub(super) fn new(host: Option<(&str, &str)>, path: &str) -> RequestText {
        let (host, name) = host.unwrap_or_default();
        let is_start = host.starts_with(name);
        let apart = if is_start { "" } else { name };
        let mut text = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        text.reserve(host.len() + apart.len() + path.len());
        for part in [host, apart, path] {
            text.push_str(part);
        }
        let start = if is_start { 0 } else { host.len() };
        RequestText {
            host: host.len(),
            name: (start, start + name.len()),
            path: host.len() + apart.len(),
            text,
        }
    }

    /// The `Host` or the authority, if the request has a valid one.
    pub fn host(&self) -> Option<&str> {
        self.text.get(..self.host).filter(|host| !host.is_empty())
    }

    /// The host without port, in lower case.
    pub fn host_name(&self) -> &str {
        self.text.get(self.name.0..self.name.1).unwrap_or_default()
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }
}

impl Drop for RequestText {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        if (1..=MAX_CAPACITY).contains(&text.capacity()) {
            text.clear();
            FREE.with_borrow_mut(|free| {
                if free.len() < MAX_KEPT {
                    free.push(text);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_text_is_used_again() {
        let text = RequestText::new(None, "/orders");
        let address = text.text.as_ptr();
        drop(text);
        drop(RequestText::default());
        let again = RequestText::new(None, "/a");
        assert_eq!((again.text.as_ptr(), again.path()), (address, "/a"));
        drop(RequestText::new(None, &"a".repeat(MAX_CAPACITY + 1)));
        assert_eq!(FREE.with_borrow(Vec::len), 0);
    }

    #[test]
    fn text_has_its_parts() {
        for (host, path) in [
            (Some(("shop.example:8080", "shop.example")), "/orders/7"),
            (Some(("SHOP.example", "shop.example")), "/"),
            (Some(("[::1]:80", "::1")), "*"),
            (None, "/orders"),
        ] {
            let text = RequestText::new(host, path);
            assert_eq!(text.host(), host.map(|(field, _)| field));
            assert_eq!(text.host_name(), host.map_or("", |(_, name)| name));
            assert_eq!(text.path(), path);
        }
    }
}
