//! The lines of a message head, of a request or a response.

use super::fields::{self, ConnectionOptions};
use crate::pipeline::fields::{FieldKind, FieldPosition, Fields, KindSet, slice};
use crate::pipeline::hop_by_hop::RequestConnection;
use crate::proxy::http1::buffer_pool;

/// Fields that may be about the client's connection alone, whatever it nominates.
const ABOUT_CONNECTION: KindSet = KindSet::NONE
    .with(FieldKind::Http2Settings)
    .with(FieldKind::KeepAlive)
    .with(FieldKind::Upgrade);

/// The bytes of a head, and where its fields are. Dropping it returns its buffers.
#[derive(Debug)]
pub struct HeadLines {
    pub bytes: Vec<u8>,
    /// In order of arrival.
    pub positions: Vec<FieldPosition>,
    pub(super) kinds: KindSet,
    pub http_10: bool,
    pub(super) connection: ConnectionOptions,
    /// The end of the first line; 0: it has not arrived.
    pub(super) first_end: u32,
}

impl Default for HeadLines {
    fn default() -> HeadLines {
        HeadLines {
            bytes: buffer_pool::take(),
            positions: fields::take_list(),
            kinds: KindSet::NONE,
            http_10: false,
            connection: ConnectionOptions::default(),
            first_end: 0,
        }
    }
}

impl HeadLines {
    pub(super) fn push(&mut self, field: FieldPosition) {
        self.kinds = self.kinds.with(field.kind);
        self.positions.push(field);
    }

    /// Replaces the fields by some of them.
    pub(super) fn replace_fields(&mut self, fields: Vec<FieldPosition>) {
        self.kinds = fields.iter().map(|field| field.kind).collect();
        fields::give_list(std::mem::replace(&mut self.positions, fields));
    }

    /// See [`Head::settle`](super::Head::settle).
    pub(super) fn settle(&mut self, is_upgrade: bool) {
        if self.connection.nominates || self.kinds.intersects(ABOUT_CONNECTION) {
            self.remove_connection_fields(is_upgrade);
        }
    }

    #[cold]
    fn remove_connection_fields(&mut self, is_upgrade: bool) {
        let connection = RequestConnection::of(self.fields(), is_upgrade);
        let mut passing = fields::take_list();
        let fields = self.positions.iter();
        passing.extend(fields.filter(|field| connection.passes(&field.borrow(&self.bytes))));
        self.replace_fields(passing);
    }

    /// The first line, with its line end.
    pub fn first_line(&self) -> &[u8] {
        slice(&self.bytes, 0, self.first_end)
    }

    /// The fields, as rules read them.
    pub fn fields(&self) -> Fields<'_> {
        Fields::of_head(&self.bytes, &self.positions, self.kinds)
    }

    /// Whether the connection stays open after the message, as far as its sender is concerned.
    pub fn persists(&self) -> bool {
        self.connection.persists(self.http_10)
    }

    /// Whether `Connection` names a field.
    pub fn nominates(&self) -> bool {
        self.connection.nominates
    }

    /// Returns its buffers: from now on it has no field.
    pub fn release(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.bytes));
        fields::give_list(std::mem::take(&mut self.positions));
    }
}

impl Drop for HeadLines {
    fn drop(&mut self) {
        self.release();
    }
}
