//! The messages of Envoy's published service, by the field numbers of its `api/envoy/service/auth/v3`.
//!
//! Only fields that are read or written are here: others, such as the body of a request, are skipped
//! where a message is read. Crates with all of Envoy's messages bring a server and a client of gRPC,
//! and take longer to compile than everything else that a call needs.

use std::collections::HashMap;

use prost::{Message, Oneof};

/// The request about which Envoy queries.
#[derive(Clone, PartialEq, Message)]
pub struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

/// An end of Envoy's connection.
#[derive(Clone, PartialEq, Message)]
pub struct Peer {
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Address {
    /// Absent where the address is that of a Unix socket, or internal to Envoy.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HttpRequest {
    #[prost(string, tag = "2")]
    pub method: String,
    /// Those of one name are joined by commas.
    #[prost(map = "string, string", tag = "3")]
    pub headers: HashMap<String, String>,
    /// With the query.
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(string, tag = "5")]
    pub host: String,
    #[prost(string, tag = "6")]
    pub scheme: String,
    #[prost(string, tag = "8")]
    pub fragment: String,
    /// In place of `headers`, with `encode_raw_headers`.
    #[prost(message, optional, tag = "13")]
    pub header_map: Option<HeaderMap>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
    /// In place of `value`.
    #[prost(bytes = "vec", tag = "3")]
    pub raw_value: Vec<u8>,
}

/// The verdict.
#[derive(Clone, PartialEq, Message)]
pub struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    pub http_response: Option<HttpResponse>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum HttpResponse {
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    pub body: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct OkHttpResponse {
    /// Toward the upstream.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
    /// Toward the client.
    #[prost(message, repeated, tag = "6")]
    pub response_headers_to_add: Vec<HeaderValueOption>,
}

#[derive(Clone, PartialEq, Message)]
pub struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    #[prost(enumeration = "HeaderAppendAction", tag = "3")]
    pub append_action: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum HeaderAppendAction {
    AppendIfExistsOrAdd = 0,
    OverwriteIfExistsOrAdd = 2,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// As another implementation writes it, with every field of the published message.
    const REQUEST: &str = "0aa1010a180a100a0e12093139322e302e322e3118e724120173220170\
        12180a100a0e12093139322e302e322e3118e724120173220170225b0a0012570a013712034745541a0d0a06\
        636f6f6b69651203613d3122042f613f622a0c73686f702e6578616d706c6532056874747073420166480352\
        06485454502f325a03616263620201026a0d0a0b0a03782d611201311a01e9620e0a0c73686f702e6578616d\
        706c65";

    /// As another implementation writes them.
    const ALLOWED: &str = "0a001a3612120a0e0a09782d757365722d696412013718022a0c782d757365722d\
        656d61696c32120a100a0a7365742d636f6f6b69651202613d";
    const DENIED: &str = "0a020810121d0a0308910312120a0e0a0476617279120641636365707418021a027b7d";

    fn bytes(digits: &str) -> Vec<u8> {
        hex::decode(digits).unwrap()
    }

    fn option(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(HeaderValue {
                key: key.to_owned(),
                value: value.to_owned(),
                raw_value: Vec::new(),
            }),
            append_action: action.into(),
        }
    }

    #[test]
    fn published_request_is_read() {
        let read = CheckRequest::decode(&*bytes(REQUEST)).unwrap();
        let raw = HeaderValue {
            key: "x-a".to_owned(),
            value: "1".to_owned(),
            raw_value: vec![0xe9],
        };
        let http = HttpRequest {
            method: "GET".to_owned(),
            headers: HashMap::from([("cookie".to_owned(), "a=1".to_owned())]),
            path: "/a?b".to_owned(),
            host: "shop.example".to_owned(),
            scheme: "https".to_owned(),
            fragment: "f".to_owned(),
            header_map: Some(HeaderMap { headers: vec![raw] }),
        };
        let address = "192.0.2.1".to_owned();
        let source = Peer {
            address: Some(Address {
                socket_address: Some(SocketAddress { address }),
            }),
        };
        let expected = AttributeContext {
            source: Some(source),
            request: Some(Request { http: Some(http) }),
        };
        assert_eq!(read.attributes, Some(expected));
    }

    #[test]
    fn responses_are_written_as_published() {
        let replaces = HeaderAppendAction::OverwriteIfExistsOrAdd;
        let appends = HeaderAppendAction::AppendIfExistsOrAdd;
        let allowed = CheckResponse {
            status: Some(Status::default()),
            http_response: Some(HttpResponse::Ok(OkHttpResponse {
                headers: vec![option("x-user-id", "7", replaces)],
                headers_to_remove: vec!["x-user-email".to_owned()],
                response_headers_to_add: vec![option("set-cookie", "a=", appends)],
            })),
        };
        assert_eq!(allowed.encode_to_vec(), bytes(ALLOWED));
        let denied = CheckResponse {
            status: Some(Status { code: 16 }),
            http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
                status: Some(HttpStatus { code: 401 }),
                headers: vec![option("vary", "Accept", replaces)],
                body: "{}".to_owned(),
            })),
        };
        assert_eq!(denied.encode_to_vec(), bytes(DENIED));
    }
}
