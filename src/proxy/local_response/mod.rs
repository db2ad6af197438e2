//! Builds local responses for every engine: an engine only writes them, and drains the body of the
//! request.

use std::time::Duration;

use http::HeaderMap;

use super::request_context::RequestContext;
use crate::pipeline::facts::RequestHead;
use crate::pipeline::local_response::{self, LocalResponse};
use crate::rejection::Rejection;

mod early;
mod http1;

pub use early::{RejectedHead, write_early_response};
pub(super) use http1::{Persistence, write};

/// An unread request body up to this size is drained, so that the connection can be kept; a larger
/// one costs the connection.
pub(super) const DRAIN_UP_TO: u64 = 64 * 1024;
/// How long the drain may take after the response was sent.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request that is not read completely when its response is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnreadBody {
    pub declared: Option<u64>,
    /// The client waits for `100 Continue`: it may or may not send its body.
    pub awaits_continue: bool,
}

impl UnreadBody {
    /// Whether the next request can be found behind the body; not if the body is known to be large.
    pub(super) fn is_drainable(self) -> bool {
        !self.awaits_continue && self.declared.is_none_or(|length| length <= DRAIN_UP_TO)
    }
}

/// Builds the response to a rejected request, and records why it was rejected. `extra` is as in
/// [`respond`](crate::pipeline::local_response::respond).
pub(super) fn reject(
    ctx: &mut RequestContext,
    head: RequestHead<'_>,
    mut rejection: Rejection,
    extra: Option<&HeaderMap>,
) -> LocalResponse {
    ctx.refusal = Some(rejection.refusal);
    ctx.record_rejection(&mut rejection);
    local_response::respond(rejection, &ctx.rejected_request(head), extra)
}

/// Records that a response is the request's.
pub(super) fn record(ctx: &mut RequestContext, response: &LocalResponse) {
    ctx.status = response.status.as_u16();
    ctx.arrival.control.set_response_finished();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_body_that_is_on_its_way_is_drained() {
        for (declared, awaits_continue, expected) in [
            (None, false, true),
            (Some(0), false, true),
            (Some(DRAIN_UP_TO), false, true),
            (Some(DRAIN_UP_TO + 1), false, false),
            (Some(1), true, false),
            (None, true, false),
        ] {
            let body = UnreadBody {
                declared,
                awaits_continue,
            };
            assert_eq!(body.is_drainable(), expected, "{body:?}");
        }
    }
}
