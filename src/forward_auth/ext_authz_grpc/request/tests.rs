#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::forward_auth::ext_authz_grpc::framing::frame;
use crate::forward_auth::ext_authz_grpc::messages::{
    Address, AttributeContext, HeaderMap, HeaderValue, Request, SocketAddress,
};

/// A call as Envoy makes it, with a change.
fn call(change: impl FnOnce(&mut AttributeContext, &mut HttpRequest)) -> Call {
    let headers = [
        (":authority", "shop.example"),
        (":path", "/other"),
        ("cookie", "a=1"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let mut http = HttpRequest {
        method: "GET".to_owned(),
        scheme: "https".to_owned(),
        host: "Shop.example:8443".to_owned(),
        path: "/orders?page=2".to_owned(),
        headers: headers
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..HttpRequest::default()
    };
    let mut attributes = AttributeContext::default();
    change(&mut attributes, &mut http);
    attributes.request = Some(Request { http: Some(http) });
    let message = CheckRequest {
        attributes: Some(attributes),
    };
    Call::read(&frame(&message)).unwrap()
}

fn header(key: &str, value: &str, raw: &[u8]) -> HeaderValue {
    HeaderValue {
        key: key.to_owned(),
        value: value.to_owned(),
        raw_value: raw.to_vec(),
    }
}

/// The fields in order of their names and values.
fn pairs(call: &Call) -> Vec<(&[u8], &[u8])> {
    let fields = call.fields().unwrap();
    let mut pairs: Vec<_> = fields
        .iter()
        .map(|field| (field.name, field.value))
        .collect();
    pairs.sort();
    pairs
}

/// The original request as text, or the fault.
fn read(call: &Call) -> Result<String, CallFault> {
    let fields = call.fields()?;
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let request = call.original_request(Fields::new(&fields), &trusted)?;
    let (host, name) = request.host_and_name();
    Ok(format!(
        "{} {} {host} {name} {} {:?} {}",
        request.method, request.client.https, request.path, request.query, request.client.ip
    ))
}

#[test]
fn attributes_name_the_request() {
    let call = call(|_, _| ());
    let expected = "GET true Shop.example:8443 shop.example /orders Some(\"page=2\") 192.0.2.7";
    assert_eq!(read(&call).as_deref(), Ok(expected));
    let expected = [
        (&b"cookie"[..], &b"a=1"[..]),
        (b"x-forwarded-for", b"192.0.2.7"),
    ];
    assert_eq!(pairs(&call), expected);
}

#[test]
fn headers_one_by_one_keep_their_bytes_and_their_number() {
    let headers = vec![
        header(":path", "", b"/other"),
        header("cookie", "", b"a=\xe9"),
        header("cookie", "b=2", b""),
    ];
    let call = call(|_, http| {
        http.headers.clear();
        http.header_map = Some(HeaderMap { headers });
    });
    let expected = [(&b"cookie"[..], &b"a=\xe9"[..]), (b"cookie", b"b=2")];
    assert_eq!(pairs(&call), expected);
}

#[test]
fn missing_and_malformed_attributes_are_faults() {
    type Change = fn(&mut HttpRequest);
    let changes: [(Change, CallFault); 24] = [
        (|http| http.method.clear(), METHOD.missing),
        (|http| http.method = "G T".into(), METHOD.malformed),
        (|http| http.scheme.clear(), SCHEME.missing),
        (|http| http.scheme = "ftp".into(), SCHEME.malformed),
        (|http| http.scheme = "wss".into(), SCHEME.malformed),
        (|http| http.host.clear(), HOST.missing),
        (|http| http.host = "a,b".into(), HOST.malformed),
        (
            |http| http.host = "user@shop.example".into(),
            HOST.malformed,
        ),
        (|http| add(http, "host", "other.example"), HOST.repeated),
        (|http| http.path.clear(), PATH.missing),
        (|http| http.path = "*".into(), PATH.malformed),
        (|http| http.path = "orders".into(), PATH.malformed),
        (|http| http.path = "/orders#top".into(), PATH.malformed),
        (|http| http.path = "/\u{e4}".into(), PATH.malformed),
        (
            |http| http.path = "https://shop.example/".into(),
            PATH.malformed,
        ),
        (|http| http.fragment = "top".into(), FRAGMENT),
        (
            |http| add(http, "x-forwarded-for", "unknown"),
            FORWARDED_FOR.malformed,
        ),
        (|http| drop(http.headers.remove("x-forwarded-for")), SOURCE),
        (|http| add(http, "", "1"), HEADER),
        (|http| add(http, "x y", "1"), HEADER),
        (|http| add(http, "x-a", "1\n2"), HEADER),
        (|http| add(http, "x-a", "1\0"), HEADER),
        (|http| add(http, "x-a:", "1"), HEADER),
        (
            |http| {
                let headers = vec![header("cookie", "b=2", b"")];
                http.header_map = Some(HeaderMap { headers });
            },
            TWO_LISTS,
        ),
    ];
    for (index, (change, fault)) in changes.into_iter().enumerate() {
        let call = call(|_, http| change(http));
        assert_eq!(read(&call), Err(fault), "change {index}");
    }
    assert_eq!(Call::read(b"{}").unwrap_err(), NO_MESSAGE);
    let empty = CheckRequest::default();
    let without_request = CheckRequest {
        attributes: Some(AttributeContext::default()),
    };
    for message in [empty, without_request] {
        let call = Call::read(&frame(&message)).unwrap();
        assert_eq!(call.fields().err(), Some(NO_REQUEST));
        assert_eq!(
            call.original_request(Fields::new(&[]), &[]).err(),
            Some(NO_REQUEST)
        );
    }
}

fn add(http: &mut HttpRequest, name: &str, value: &str) {
    http.headers.insert(name.to_owned(), value.to_owned());
}

#[test]
fn equal_host_header_passes() {
    let call = call(|_, http| add(http, "host", "Shop.example:8443"));
    assert!(read(&call).is_ok());
}

#[test]
fn client_is_the_source_where_no_proxy_is_named() {
    let socket = |address: &str| {
        let address = address.to_owned();
        Some(SocketAddress { address })
    };
    for (socket_address, expected) in [
        (socket("192.0.2.1"), Some("192.0.2.1")),
        (socket("::ffff:192.0.2.1"), Some("192.0.2.1")),
        (socket("2001:db8::1"), Some("2001:db8::1")),
        (socket("localhost"), None),
        (socket(""), None),
        (None, None),
    ] {
        let name = format!("{socket_address:?}");
        let peer = Peer {
            address: Some(Address { socket_address }),
        };
        let call = call(|attributes, http| {
            attributes.source = Some(peer);
            http.headers.remove("x-forwarded-for");
        });
        let found = read(&call).ok();
        let found = found
            .as_deref()
            .and_then(|text| text.split(' ').next_back());
        assert_eq!(found, expected, "{name}");
    }
}
