//! A complete request head.

use super::HeadLines;
use crate::pipeline::fields::slice;
use crate::routing::HostName;

/// A request head: its lines, and what the reader found in them.
#[derive(Debug, Default)]
pub struct Head {
    /// From the request line on, with the target in origin form.
    pub lines: HeadLines,
    pub body: BodyFraming,
    /// The request asks for an upgrade to WebSocket, the only supported protocol.
    pub upgrade: bool,
    /// The client may be waiting for `100 Continue`.
    pub expects_continue: bool,
    /// 0: it is not complete.
    pub(super) length: usize,
    pub(super) method_end: u32,
    pub(super) target_end: u32,
    /// Of the target without its query.
    pub(super) path_length: u32,
    pub(super) host: (u32, u32),
    pub(super) host_name: HostName,
}

/// How the request's body is delimited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    #[default]
    None,
    Length(u64),
    Chunked,
}

impl Head {
    /// Removes the fields that are about the client's connection alone, before any rule reads them. Not
    /// those of a front proxy's call, which are fields of a request that the gateway does not forward.
    pub fn settle(&mut self) {
        self.lines.settle(self.upgrade);
    }

    pub fn method(&self) -> &[u8] {
        slice(&self.lines.bytes, 0, self.method_end)
    }

    /// The target in origin form, or `*`.
    pub fn target(&self) -> &str {
        // The reader has rejected every byte that is not ASCII.
        let target = slice(&self.lines.bytes, self.method_end + 1, self.target_end);
        std::str::from_utf8(target).unwrap_or_default()
    }

    /// The target without its query, and the query.
    pub fn path_and_query(&self) -> (&str, Option<&str>) {
        let target = self.target();
        match target.split_at_checked(self.path_length as usize) {
            Some((path, query)) => (path, query.strip_prefix('?')),
            None => (target, None),
        }
    }

    /// Method and target, as they begin the request line.
    pub fn method_and_target(&self) -> &[u8] {
        slice(&self.lines.bytes, 0, self.target_end)
    }

    /// The value of `Host`.
    pub fn host(&self) -> &[u8] {
        slice(&self.lines.bytes, self.host.0, self.host.1)
    }

    /// The value of `Host`, and the host in it without its port, in lower case.
    pub fn host_and_name(&self) -> Option<(&str, &str)> {
        let host = std::str::from_utf8(self.host()).ok()?;
        let name = match &self.host_name {
            HostName::Start(length) => host.get(..*length)?,
            HostName::Normalized(name) => name,
        };
        Some((host, name))
    }
}
