//! Cost of reading a request and of writing the forwarded one.

use std::hint::black_box;

use criterion::Criterion;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method, Version};
use portcullis::auth::credential;
use portcullis::pipeline::facts::client_origin;
use portcullis::pipeline::fields::{Field, FieldKind, FieldList, Fields};
use portcullis::pipeline::upstream_request::{PeerOrigin, UpstreamHead, UpstreamRequest};
use portcullis::pipeline::via::Via;
use portcullis::routing::Path;
use portcullis::settings::ForwardedBy;
use portcullis::telemetry::request_id::RequestId;

use crate::parts::{self, Fixture, request_headers};

const SECRET: &str = "{algorithm: HS256, secret: '0123456789abcdef0123456789abcdef'}";
const COOKIE_NAME: &str = "__Host-portcullis";

pub(crate) fn path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    for (name, raw) in [
        ("plain", "/shop/orders/4711/items"),
        ("encoded", "/shop/caf%C3%A9/items"),
        ("refused", "/shop/../admin"),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| Path::read(black_box(raw.as_bytes())).is_ok());
        });
    }
    group.finish();
}

pub(crate) fn routing(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let headers = request_headers();
    let list: FieldList<'_> = headers.iter().map(Field::from).collect();
    let mut group = criterion.benchmark_group("routing");
    for many in [10, 1000, 10_000] {
        let table = parts::settings(SECRET, many, folder.path())
            .reloadable
            .routes;
        let raw = format!("/service-{}/api/orders/4711", many / 2);
        let path = parts::path(&raw);
        group.bench_function(format!("{many} routes"), |bench| {
            bench.iter(|| {
                let fields = Fields::new(&list).pairs();
                let host = "shop.example.com";
                let found = table.find(host, black_box(&path), &Method::GET, &fields);
                found.is_some()
            });
        });
    }
    group.finish();
}

pub(crate) fn credential(criterion: &mut Criterion) {
    let parts = Fixture::new(SECRET);
    let bearer = parts.sign_in();
    let mut cookie = request_headers();
    let value = format!(
        "theme=dark; {COOKIE_NAME}={}; consent=2026-01-07",
        "ab".repeat(32)
    );
    let value = HeaderValue::try_from(value).expect("a header");
    cookie.insert(COOKIE, value);
    let mut group = criterion.benchmark_group("credential");
    for (name, headers) in [
        ("bearer", &bearer),
        ("cookie", &cookie),
        ("none", &request_headers()),
    ] {
        let list: FieldList<'_> = headers.iter().map(Field::from).collect();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let fields = black_box(Fields::new(&list));
                let authorizations = fields.all(FieldKind::Authorization);
                let cookies = fields.all(FieldKind::Cookie);
                credential::extract(authorizations, std::iter::empty(), cookies, COOKIE_NAME)
                    == credential::PresentedCredential::Absent
            });
        });
    }
    group.finish();
}

pub(crate) fn headers(criterion: &mut Criterion) {
    let parts = Fixture::new(SECRET);
    let presented = parts.sign_in();
    let permit = parts.runtime.block_on(parts.admit("known", &presented));
    let permit = permit.expect("a permit");
    let settings = &parts.snapshot.settings;
    let list: FieldList<'_> = presented.iter().map(Field::from).collect();
    let fields = Fields::new(&list);
    let peer = [198, 51, 100, 7].into();
    let origin = client_origin::resolve(peer, false, &[], ForwardedBy::XForwardedFor, fields);
    let request = UpstreamRequest {
        settings,
        assertions: &parts.snapshot.assertions,
        via: &Via::new("portcullis-0").expect("a header"),
        version: Version::HTTP_11,
        origin: &origin,
        peer: &PeerOrigin::new(peer, false),
        host: "shop.example.com",
        path: "/known",
        request_id: &RequestId::generate(),
        server_host: None,
        carries_trailers: false,
    };
    let head = || UpstreamHead::new(&request, &permit, fields).expect("a head");
    let mut group = criterion.benchmark_group("headers");
    group.bench_function("pass", |bench| {
        bench.iter(|| {
            let head = head();
            let passing = list.iter().filter(|field| head.passes(black_box(field)));
            passing.count()
        });
    });
    let head = head();
    group.bench_function("write to a map", |bench| {
        bench.iter_batched_ref(
            || HeaderMap::with_capacity(24),
            |map| head.write(map).is_ok(),
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("write to bytes", |bench| {
        bench.iter_batched_ref(
            || Vec::with_capacity(1024),
            |bytes: &mut Vec<u8>| head.write(bytes).is_ok(),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}
