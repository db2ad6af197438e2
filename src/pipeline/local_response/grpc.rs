//! Responses to gRPC calls.
//!
//! A gRPC client reads the outcome of a call from `grpc-status`, in the trailers or, where there is
//! no response beside it, in the head (gRPC over HTTP/2, "Trailers-Only").

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{
    GRPC, LocalResponse, NO_STORE, RejectedRequest, further_headers, names_token_error,
    write_rejection,
};
use crate::pipeline::header_fields::{FieldBuffer, FieldSink};
use crate::rejection::{Refusal, Rejection};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const CODE: HeaderName = HeaderName::from_static("x-portcullis-code");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Characters that `grpc-message` has to encode, beside non-ASCII ones.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Responds with a head alone.
pub(super) fn respond(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
    extra: Option<&HeaderMap>,
) -> LocalResponse {
    let mut headers = FieldBuffer::new();
    headers.add(&header::CACHE_CONTROL, &NO_STORE);
    let names_token_error = names_token_error(rejection.refusal, request.head.fields);
    write_rejection(rejection, names_token_error, &request.context, &mut headers);
    let further = further_headers(rejection, request, extra).into_iter();
    headers.extend(further.filter(|(name, _)| *name != header::VARY));
    headers.push((header::CONTENT_TYPE, HeaderValue::from_static(GRPC)));
    let outcome = CallOutcome::of(rejection.refusal, rejection.retry_delay());
    headers.extend(outcome.headers());
    trailers_only(headers)
}

/// Responds with the outcome alone to a call that has received no head yet.
pub fn end_call(outcome: CallOutcome) -> LocalResponse {
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(GRPC))];
    headers.extend(outcome.headers());
    trailers_only(headers)
}

fn trailers_only(headers: FieldBuffer) -> LocalResponse {
    LocalResponse {
        is_trailers_only: true,
        ..LocalResponse::new(StatusCode::OK, headers, Bytes::new())
    }
}

/// The status codes that the gateway reports (gRPC, "Status codes and their use in gRPC").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrpcStatus {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl GrpcStatus {
    /// Returns the status that stands for a rejection with this status of HTTP.
    fn of(status: StatusCode) -> GrpcStatus {
        match status {
            // In place of a rejection, a browser is sent to sign in.
            StatusCode::UNAUTHORIZED | StatusCode::SEE_OTHER => GrpcStatus::Unauthenticated,
            StatusCode::FORBIDDEN => GrpcStatus::PermissionDenied,
            StatusCode::NOT_FOUND => GrpcStatus::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => GrpcStatus::Unimplemented,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => {
                GrpcStatus::DeadlineExceeded
            }
            StatusCode::CONFLICT => GrpcStatus::AlreadyExists,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => GrpcStatus::ResourceExhausted,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => GrpcStatus::Unavailable,
            status if status.is_client_error() => GrpcStatus::InvalidArgument,
            _ => GrpcStatus::Internal,
        }
    }
}

/// The status of gRPC that stands for a rejection with this status of HTTP.
pub fn grpc_status(status: StatusCode) -> i32 {
    GrpcStatus::of(status) as i32
}

/// The outcome of a call that the gateway ends.
#[derive(Debug, Clone, Copy)]
pub struct CallOutcome {
    status: GrpcStatus,
    message: &'static str,
    code: Option<&'static str>,
    retry_after: Option<Duration>,
}

impl CallOutcome {
    /// The outcome of a rejected call.
    pub fn of(refusal: Refusal, retry_after: Option<Duration>) -> CallOutcome {
        CallOutcome {
            status: GrpcStatus::of(refusal.status()),
            message: refusal.message(),
            code: Some(refusal.code()),
            retry_after,
        }
    }

    /// The outcome of a stream whose session or token has ended since it was opened.
    pub const ENDED: CallOutcome = CallOutcome {
        status: GrpcStatus::Unauthenticated,
        message: "The session or the token has ended.",
        code: None,
        retry_after: None,
    };

    /// The fields that report the outcome, as trailers.
    pub fn trailers(self) -> HeaderMap {
        self.headers().collect()
    }

    /// The same, as fields of a head.
    fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let message = utf8_percent_encode(self.message, ENCODED).to_string();
        let pushback = self.retry_after.map(|wait| {
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            HeaderValue::from(wait)
        });
        [
            (GRPC_STATUS, Some(HeaderValue::from(self.status as u16))),
            (GRPC_MESSAGE, HeaderValue::try_from(message).ok()),
            (CODE, self.code.map(HeaderValue::from_static)),
            (PUSHBACK, pushback),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn refusals_map_to_status_codes() {
        for (refusal, status) in [
            (Refusal::BadRequest, 3),
            (Refusal::TokenExpired, 16),
            (Refusal::Forbidden, 7),
            (Refusal::RouteNotFound, 5),
            (Refusal::RateLimited, 8),
            (Refusal::BodyTooLarge, 8),
            (Refusal::UpstreamUnreachable, 14),
            (Refusal::StoreUnavailable, 14),
            (Refusal::UpstreamTimeout, 4),
            (Refusal::Internal, 13),
        ] {
            assert_eq!(
                GrpcStatus::of(refusal.status()) as u16,
                status,
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn the_fields_report_the_outcome() {
        let wait = Some(Duration::from_millis(1500));
        let fields = CallOutcome::of(Refusal::RateLimited, wait).trailers();
        let text = |name: &str| fields.get(name).unwrap().to_str().unwrap();
        assert_eq!(text("grpc-status"), "8");
        assert_eq!(text("grpc-message"), "Too many requests.");
        assert_eq!(text("x-portcullis-code"), "RATE_LIMITED");
        assert_eq!(text("grpc-retry-pushback-ms"), "1500");
        let odd = CallOutcome {
            message: "50 % \u{e9}\n",
            ..CallOutcome::ENDED
        };
        assert_eq!(
            odd.trailers().get("grpc-message").unwrap(),
            "50 %25 %C3%A9%0A"
        );
    }
}
