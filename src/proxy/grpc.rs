//! gRPC over HTTP/2: how an error is reported, and where one message of a stream ends.
//!
//! A gRPC client reads the outcome of a call from `grpc-status`, in the trailers or, where there is
//! no response beside it, in the head (gRPC over HTTP/2, "Trailers-Only").

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::rejection::Refusal;

/// The media type of a call and of its response.
pub(super) const MEDIA_TYPE: &str = "application/grpc";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const CODE: HeaderName = HeaderName::from_static("x-portcullis-code");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What `grpc-message` cannot hold as it is, beside what is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Bytes before a message: a flag, and the message's length.
const PREFIX: usize = 5;

/// Whether a request is a gRPC call. gRPC-Web is another protocol.
pub(super) fn is_call(method: &Method, fields: &HeaderMap) -> bool {
    method == Method::POST
        && fields
            .get(header::CONTENT_TYPE)
            .is_some_and(|content| is_media_type(content.as_bytes()))
}

fn is_media_type(content: &[u8]) -> bool {
    let length = MEDIA_TYPE.len();
    let begins = content
        .get(..length)
        .is_some_and(|start| start.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()));
    begins && matches!(content.get(length), None | Some(b'+' | b';' | b' '))
}

/// The status codes that the gateway reports (gRPC, "Status codes and their use in gRPC").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrpcStatus {
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
    /// Returns the status that stands for a refusal.
    pub(super) fn of(refusal: Refusal) -> GrpcStatus {
        match refusal.status() {
            StatusCode::UNAUTHORIZED => GrpcStatus::Unauthenticated,
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

/// The outcome of a call that the gateway ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallOutcome {
    pub status: GrpcStatus,
    pub message: &'static str,
    pub code: Option<&'static str>,
    pub retry_after: Option<Duration>,
}

impl CallOutcome {
    pub(super) fn of(refusal: Refusal, retry_after: Option<Duration>) -> CallOutcome {
        CallOutcome {
            status: GrpcStatus::of(refusal),
            message: refusal.message(),
            code: Some(refusal.code()),
            retry_after,
        }
    }

    /// Of a stream whose session or token has ended since it was opened.
    pub(super) const ENDED: CallOutcome = CallOutcome {
        status: GrpcStatus::Unauthenticated,
        message: "The session or the token has ended.",
        code: None,
        retry_after: None,
    };

    /// The fields that report it, in the head or the trailers.
    pub(super) fn fields(self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(4);
        fields.insert(GRPC_STATUS, HeaderValue::from(self.status as u16));
        let message = utf8_percent_encode(self.message, ENCODED).to_string();
        if let Ok(message) = HeaderValue::try_from(message) {
            fields.insert(GRPC_MESSAGE, message);
        }
        if let Some(code) = self.code {
            fields.insert(CODE, HeaderValue::from_static(code));
        }
        if let Some(wait) = self.retry_after {
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            fields.insert(PUSHBACK, HeaderValue::from(wait));
        }
        fields
    }
}

/// Follows the messages of a request body, to know the length of each.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes of the message that are still to come.
    left: u64,
}

/// A message is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageTooLong;

impl Messages {
    /// Follows further bytes.
    ///
    /// # Errors
    /// A message among them is longer than `most`.
    pub(super) fn pass(&mut self, mut bytes: &[u8], most: u64) -> Result<(), MessageTooLong> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len() as u64);
                self.left -= skipped;
                bytes = bytes.get(skipped as usize..).unwrap_or_default();
                continue;
            }
            let free = self.prefix.get_mut(self.filled..).unwrap_or_default();
            let taken = free.len().min(bytes.len());
            let (part, rest) = bytes.split_at(taken);
            for (slot, byte) in free.iter_mut().zip(part) {
                *slot = *byte;
            }
            self.filled += taken;
            bytes = rest;
            if self.filled == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.filled = 0;
                if self.left > most {
                    return Err(MessageTooLong);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn call_is_recognized_by_its_media_type() {
        for (method, content, call) in [
            ("POST", "application/grpc", true),
            ("POST", "Application/GRPC+proto", true),
            ("POST", "application/grpc;charset=utf-8", true),
            ("POST", "application/grpc-web", false),
            ("POST", "application/grpc-web+proto", false),
            ("POST", "application/json", false),
            ("GET", "application/grpc", false),
        ] {
            let method = method.parse().unwrap();
            let mut fields = HeaderMap::new();
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
            assert_eq!(is_call(&method, &fields), call, "{method} {content}");
        }
    }

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
            assert_eq!(GrpcStatus::of(refusal) as u16, status, "{refusal:?}");
        }
    }

    #[test]
    fn the_fields_report_the_outcome() {
        let wait = Some(Duration::from_millis(1500));
        let fields = CallOutcome::of(Refusal::RateLimited, wait).fields();
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
            odd.fields().get("grpc-message").unwrap(),
            "50 %25 %C3%A9%0A"
        );
    }

    #[test]
    fn message_limit_holds_for_any_split() {
        let mut stream = Vec::new();
        for length in [3_u32, 0, 10, 10] {
            stream.push(0);
            stream.extend_from_slice(&length.to_be_bytes());
            stream.extend(std::iter::repeat_n(b'x', length as usize));
        }
        for step in 1..stream.len() {
            let mut messages = Messages::default();
            for part in stream.chunks(step) {
                assert_eq!(messages.pass(part, 10), Ok(()), "{step}");
            }
            let mut messages = Messages::default();
            let passed: Vec<_> = stream.chunks(step).map(|it| messages.pass(it, 9)).collect();
            assert!(passed.contains(&Err(MessageTooLong)), "{step}");
        }
        let mut messages = Messages::default();
        assert_eq!(messages.pass(&stream[..8], 3), Ok(()));
        assert_eq!(
            messages.pass(&[0, 0xff, 0xff, 0xff, 0xff], 3),
            Err(MessageTooLong)
        );
    }
}
