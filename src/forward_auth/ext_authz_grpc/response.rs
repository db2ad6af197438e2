//! The `CheckResponse` to a decision.
//!
//! A decision is always a response of its own: Envoy's `failure_mode_allow` lets a request through
//! whose call ends with a gRPC error, and so does an `ErrorResponse`.

use std::collections::HashSet;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use super::framing::frame;
use super::messages::{
    CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue as Header,
    HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse, Status,
};
use crate::pipeline::header_fields::FieldBuffer;
use crate::pipeline::local_response::grpc_status;
use crate::pipeline::upstream_request::RequestEdits;

/// Lets a request pass with these changes; the client receives `response` beside the upstream's
/// headers. Returns the body of the response.
pub fn allow(edits: &RequestEdits, response: &FieldBuffer) -> Bytes {
    frame(&CheckResponse {
        status: Some(Status::default()),
        http_response: Some(HttpResponse::Ok(OkHttpResponse {
            headers: options(&edits.set),
            headers_to_remove: edits.removed.iter().map(HeaderName::to_string).collect(),
            response_headers_to_add: options(response),
        })),
    })
}

/// Rejects a request, whose client receives this response. Returns the body of the response.
pub fn deny(status: StatusCode, headers: &FieldBuffer, body: &[u8]) -> Bytes {
    frame(&CheckResponse {
        status: Some(Status {
            code: grpc_status(status),
        }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus {
                code: i32::from(status.as_u16()),
            }),
            headers: options(headers),
            body: String::from_utf8_lossy(body).into_owned(),
        })),
    })
}

/// The first header of a name replaces what is there. Cookies are added to those of the upstream, and
/// further headers of a name to the first. Envoy computes the length of a body.
fn options(fields: &FieldBuffer) -> Vec<HeaderValueOption> {
    let mut seen = HashSet::new();
    let fields = fields.iter();
    let fields = fields.filter(|(name, _)| *name != header::CONTENT_LENGTH);
    let options = fields.map(|(name, value)| {
        let is_first = seen.insert(name) && *name != header::SET_COOKIE;
        option(name, value, is_first)
    });
    options.collect()
}

fn option(name: &HeaderName, value: &HeaderValue, replaces: bool) -> HeaderValueOption {
    let action = match replaces {
        true => HeaderAppendAction::OverwriteIfExistsOrAdd,
        false => HeaderAppendAction::AppendIfExistsOrAdd,
    };
    HeaderValueOption {
        header: Some(Header {
            key: name.to_string(),
            // Envoy reads no other form. Only cookies of the client's can be no UTF-8.
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            raw_value: Vec::new(),
        }),
        append_action: action.into(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::forward_auth::ext_authz_grpc::framing::read_message;

    fn fields(pairs: &[(&'static str, &'static str)]) -> FieldBuffer {
        let field = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        pairs.iter().map(field).collect()
    }

    fn written(options: &[HeaderValueOption]) -> Vec<(&str, &str, HeaderAppendAction)> {
        let options = options.iter().map(|option| {
            let header = option.header.as_ref().unwrap();
            (&*header.key, &*header.value, option.append_action())
        });
        options.collect()
    }

    const SET: HeaderAppendAction = HeaderAppendAction::OverwriteIfExistsOrAdd;
    const ADD: HeaderAppendAction = HeaderAppendAction::AppendIfExistsOrAdd;

    #[test]
    fn allowed_headers_replace_those_of_the_client() {
        let edits = RequestEdits {
            set: fields(&[("x-user-id", "7"), ("x-roles", "a,b")]),
            removed: vec![HeaderName::from_static("x_user_id")],
        };
        let response = fields(&[("x-ratelimit-limit", "5"), ("set-cookie", "portcullis=")]);
        let response = read_message::<CheckResponse>(&allow(&edits, &response)).unwrap();
        assert_eq!(response.status.unwrap().code, 0);
        let Some(HttpResponse::Ok(ok)) = response.http_response else {
            panic!("not allowed");
        };
        let expected = [("x-user-id", "7", SET), ("x-roles", "a,b", SET)];
        assert_eq!(written(&ok.headers), expected);
        assert_eq!(ok.headers_to_remove, ["x_user_id"]);
        let expected = [
            ("x-ratelimit-limit", "5", SET),
            ("set-cookie", "portcullis=", ADD),
        ];
        assert_eq!(written(&ok.response_headers_to_add), expected);
    }

    #[test]
    fn rejection_is_never_an_error() {
        let headers = fields(&[
            ("set-cookie", "a="),
            ("set-cookie", "b="),
            ("vary", "Accept"),
            ("vary", "Origin"),
            ("content-length", "2"),
        ]);
        for (status, code) in [
            (401, 16),
            (403, 7),
            (429, 8),
            (503, 14),
            (303, 16),
            (500, 13),
        ] {
            let response = deny(StatusCode::from_u16(status).unwrap(), &headers, b"{}");
            let response = read_message::<CheckResponse>(&response).unwrap();
            assert_eq!(response.status.unwrap().code, code, "{status}");
            let Some(HttpResponse::Denied(denied)) = response.http_response else {
                panic!("not denied: {status}");
            };
            assert_eq!(denied.status.unwrap().code, i32::from(status));
            assert_eq!(denied.body, "{}");
            let expected = [
                ("set-cookie", "a=", ADD),
                ("set-cookie", "b=", ADD),
                ("vary", "Accept", SET),
                ("vary", "Origin", ADD),
            ];
            assert_eq!(written(&denied.headers), expected, "{status}");
        }
    }
}
