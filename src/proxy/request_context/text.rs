//! The texts of a request that its log line and its decision need.

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
        let mut text = String::with_capacity(host.len() + apart.len() + path.len());
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

#[cfg(test)]
mod tests {
    use super::*;

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
