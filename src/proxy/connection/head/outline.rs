//! The part of a rejected head that the log shows.

use http::Method;

use super::super::byte_class::is_token;
use super::target;
use crate::routing::host_of;

/// The parts of a rejected head that could be parsed; the others are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outline {
    pub method: Option<Method>,
    /// Without the port.
    pub host: String,
    /// Without the query.
    pub path: String,
}

impl Outline {
    /// Parses the lines of `buffer` up to the first one that is malformed or incomplete.
    pub fn read(buffer: &[u8]) -> Outline {
        let lines = buffer.split_inclusive(|byte| *byte == b'\n');
        let mut lines = lines
            .map_while(|line| line.strip_suffix(b"\r\n"))
            .skip_while(|line| line.is_empty());
        let request_line = lines.next().and_then(read_request_line);
        let Some((method, path)) = request_line else {
            return Outline::default();
        };
        let mut hosts = lines
            .take_while(|line| !line.is_empty())
            .filter_map(host_field);
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => std::str::from_utf8(host).ok(),
            _ => None,
        };
        Outline {
            method: Some(method),
            host: host
                .and_then(|host| Some(host_of(host).ok()?.into_owned()))
                .unwrap_or_default(),
            path: path.unwrap_or_default(),
        }
    }
}

fn read_request_line(line: &[u8]) -> Option<(Method, Option<String>)> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if !version.starts_with(b"HTTP/") || !method.iter().all(|byte| is_token(*byte)) {
        return None;
    }
    Some((Method::from_bytes(method).ok()?, read_path(target)))
}

/// The path of a target in origin or absolute form, if it has no illegal byte.
fn read_path(target: &[u8]) -> Option<String> {
    let target = target.split(|byte| *byte == b'?').next()?;
    target::check(target).ok()?;
    let (start, rest) = if target.starts_with(b"/") || target == b"*" {
        (&b""[..], target)
    } else {
        let absolute = target::absolute(target, 0, false).ok()?;
        (absolute.path, target.get(absolute.cut.end..)?)
    };
    String::from_utf8([start, rest].concat()).ok()
}

fn host_field(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at(colon);
    name.eq_ignore_ascii_case(b"host")
        .then(|| value.get(1..).unwrap_or_default().trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_has_what_precedes_the_fault_and_never_the_query() {
        for (head, method, host, path) in [
            ("", None, "", ""),
            ("GET /a", None, "", ""),
            ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", None, "", ""),
            ("\x16\x03\x01\r\n", None, "", ""),
            ("GET /a\r\nHost: x\r\n", None, "", ""),
            ("GET /a HTTP/1.1\r\nHos", Some(Method::GET), "", "/a"),
            (
                "\r\nPOST /a?secret HTTP/1.1\r\nHost: X:80\r\nA : b\r\n\r\n",
                Some(Method::POST),
                "x",
                "/a",
            ),
            (
                "GET /a?\" HTTP/1.1\r\nhost:x\r\n\r\n",
                Some(Method::GET),
                "x",
                "/a",
            ),
            (
                "GET /<a HTTP/1.1\r\nHost: x\r\n\r\n",
                Some(Method::GET),
                "x",
                "",
            ),
            (
                "GET http://u:p@y/a?b HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
                Some(Method::GET),
                "",
                "/a",
            ),
            (
                "GET / HTTP/1.1\r\nA: b\n\r\nHost: x\r\n\r\n",
                Some(Method::GET),
                "",
                "/",
            ),
            (
                "GET / HTTP/1.1\r\n\r\nHost: body\r\n",
                Some(Method::GET),
                "",
                "/",
            ),
        ] {
            let expected = Outline {
                method,
                host: host.to_owned(),
                path: path.to_owned(),
            };
            assert_eq!(Outline::read(head.as_bytes()), expected, "{head:?}");
        }
    }
}
