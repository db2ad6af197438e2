//! Upgraded connections: bytes pass in both directions until either side ends.

use std::task::Context;

use super::exchange::Exchange;
use super::response_writer::{self, Framing};
use crate::pipeline::client_response::framing;
use crate::proxy::connection::head::response::ResponseHead;
use crate::proxy::open_streams::StreamKind;
use crate::proxy::open_streams::stream_control::CloseReason;
use crate::proxy::retry::Failure;

impl Exchange<'_> {
    /// Begins a tunnel with the upstream's 101. Until then no byte of the client has passed.
    ///
    /// # Errors
    /// It does not complete the upgrade that the client asked for.
    pub(super) fn begin_tunnel(&mut self, head: &ResponseHead) -> Result<(), Failure> {
        let checked = framing::check_upgrade(self.request.upgrade, head.lines.fields());
        checked.map_err(|why| self.reject(why))?;
        self.keep_upstream = false;
        self.keep_client = false;
        self.record_response(head, StreamKind::Endless);
        self.ctx.arrival.control.set_upgraded();
        let permit = &self.admitted.permit;
        response_writer::write(self.client.out(), head, self.ctx, permit, Framing::Upgrade);
        self.ctx.forwarded.status = head.status;
        self.upload.begin_tunnel();
        self.download.begin_tunnel();
        self.request.lines.release();
        Ok(())
    }

    /// Ends a tunnel from outside: with a Close frame, if the client is at the end of a frame. A client
    /// that takes nothing is not waited for.
    pub(super) fn end_tunnel(&mut self, cx: &mut Context<'_>, why: CloseReason) {
        if self.download.may_close() {
            self.client.out().extend_from_slice(&why.close_frame());
        }
        let _ = self.client.poll_send(cx);
    }
}
