//! What a request records about the response of its upstream.

use super::exchange::Exchange;
use crate::clock;
use crate::pipeline::fields::FieldKind;
use crate::proxy::connection::head::response::ResponseHead;
use crate::proxy::connection_auth;
use crate::proxy::open_streams::StreamKind;
use crate::proxy::retry::Failure;
use crate::rejection::Reason;
use crate::upstream::AttemptOutcome;

/// The field of a challenge.
const CHALLENGE: &str = "www-authenticate";

impl Exchange<'_> {
    /// Records that the upstream's response is not valid.
    pub(super) fn reject(&mut self, why: &'static str) -> Failure {
        self.ctx.reason = Some(Reason::Framing(why));
        Failure::InvalidResponse
    }

    /// Records a final response, or the beginning of a tunnel.
    pub(super) fn record_response(&mut self, head: &ResponseHead, kind: StreamKind) {
        let attempts = &self.admitted.attempts;
        let now = clock::monotonic();
        let started = attempts.started;
        self.ctx.upstream_time = started.map(|started| now.saturating_duration_since(started));
        self.download.head_read_at = Some(now);
        self.ctx.status = head.status;
        if let Some(server) = &attempts.server {
            server.report(AttemptOutcome::Success);
        }
        if head.status == 401 {
            self.handle_connection_challenge(head);
        }
        if kind == StreamKind::Endless {
            self.quiet.allow_stream();
        }
        if kind != StreamKind::Short {
            self.admitted.registration.set_kind(kind);
        }
        self.keep_client &= !self.ctx.worker.readiness.is_draining();
    }

    /// Handles an upstream's challenge to authenticate the connection: the client connection gets
    /// upstream connections of its own, and this shared one is not used again.
    fn handle_connection_challenge(&mut self, head: &ResponseHead) {
        let challenges = head.lines.fields().named(CHALLENGE);
        if !connection_auth::challenges_connection(challenges) {
            return;
        }
        let attempts = &self.admitted.attempts;
        self.keep_upstream &= attempts.is_exclusive;
        if let Some(server) = &attempts.server {
            self.ctx.arrival.peer.own_connections.claim().pin(server);
        }
    }
}

/// How long a response is expected to last.
pub(super) fn response_kind(head: &ResponseHead) -> StreamKind {
    let content_type = head.lines.fields().first(FieldKind::ContentType);
    StreamKind::of_media_type(content_type.unwrap_or_default())
}
