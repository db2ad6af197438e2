//! A complete request head.

use std::borrow::Cow;

use super::fields::{self, ConnectionOptions, HeadField, slice};
use crate::pipeline::fields::{Field, FieldKind, FieldList};
use crate::proxy::http1::buffer_pool;

/// A request head: its bytes, and what the reader found in them. Dropping it returns its buffers.
#[derive(Debug, Default)]
pub struct Head {
    /// From the request line on, with the target in origin form.
    pub bytes: Vec<u8>,
    /// In order of arrival.
    pub fields: Vec<HeadField>,
    pub body: BodyFraming,
    /// The request asks for an upgrade to WebSocket, the only supported protocol.
    pub upgrade: bool,
    /// The client may be waiting for `100 Continue`.
    pub expects_continue: bool,
    pub http_10: bool,
    pub(super) connection: ConnectionOptions,
    /// 0: it is not complete.
    pub(super) length: usize,
    pub(super) method_end: u32,
    pub(super) target_end: u32,
    /// The end of the request line.
    pub(super) line_end: u32,
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

/// The host without its port, as `host_of` reads it.
#[derive(Debug)]
pub(super) enum HostName {
    /// The first bytes of the `Host`.
    Start(usize),
    Normalized(String),
}

impl Default for HostName {
    fn default() -> HostName {
        HostName::Start(0)
    }
}

impl From<Cow<'_, str>> for HostName {
    fn from(name: Cow<'_, str>) -> HostName {
        match name {
            Cow::Borrowed(name) => HostName::Start(name.len()),
            Cow::Owned(name) => HostName::Normalized(name),
        }
    }
}

impl Head {
    pub(super) fn pooled() -> Head {
        let mut head = Head::default();
        head.bytes = buffer_pool::take();
        head.fields = fields::take_list();
        head
    }

    pub fn method(&self) -> &[u8] {
        slice(&self.bytes, (0, self.method_end))
    }

    /// The target in origin form, or `*`.
    pub fn target(&self) -> &str {
        // The reader has rejected every byte that is not ASCII.
        let target = slice(&self.bytes, (self.method_end + 1, self.target_end));
        std::str::from_utf8(target).unwrap_or_default()
    }

    /// Method and target, as they begin the request line.
    pub fn method_and_target(&self) -> &[u8] {
        slice(&self.bytes, (0, self.target_end))
    }

    /// The request line, with its line end.
    pub fn request_line(&self) -> &[u8] {
        slice(&self.bytes, (0, self.line_end))
    }

    /// Where the first field begins.
    pub fn fields_start(&self) -> usize {
        self.line_end as usize
    }

    /// The value of `Host`.
    pub fn host(&self) -> &[u8] {
        slice(&self.bytes, self.host)
    }

    /// The host without its port, in lower case.
    pub fn host_name(&self) -> &str {
        match &self.host_name {
            HostName::Start(length) => {
                let name = self.host().get(..*length);
                name.and_then(|name| std::str::from_utf8(name).ok())
                    .unwrap_or_default()
            }
            HostName::Normalized(name) => name,
        }
    }

    pub fn name(&self, field: &HeadField) -> &[u8] {
        field.name(&self.bytes)
    }

    /// Without the whitespace around it.
    pub fn value(&self, field: &HeadField) -> &[u8] {
        field.value(&self.bytes)
    }

    /// The fields as rules read them.
    pub fn list(&self) -> FieldList<'_> {
        let fields = self.fields.iter();
        fields.map(|field| field.borrow(&self.bytes)).collect()
    }

    /// The first field of a kind.
    pub fn first(&self, kind: FieldKind) -> Option<Field<'_>> {
        let field = self.fields.iter().find(|field| field.kind == kind)?;
        Some(field.borrow(&self.bytes))
    }

    /// Whether the connection stays open after the request, as far as the client is concerned.
    pub fn persists(&self) -> bool {
        self.connection.persists(self.http_10)
    }

    /// Whether `Connection` names a field.
    pub fn nominates(&self) -> bool {
        self.connection.nominates
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.bytes));
        fields::give_list(std::mem::take(&mut self.fields));
    }
}
