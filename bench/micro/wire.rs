//! Cost of reading a request and of writing the forwarded one.

use std::hint::black_box;

use criterion::Criterion;
use http::header::COOKIE;
use http::{HeaderValue, Method};
use portcullis::auth::credential;
use portcullis::pipeline::facts::client_origin;
use portcullis::pipeline::fields::{Field, FieldKind, FieldList, Fields};
use portcullis::pipeline::upstream_request as written;
use portcullis::routing::{HeaderEdits, IdentityHeaders, Path};
use portcullis::settings::{ForwardedBy, IdentityHeaderNames};

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
                credential::extract(authorizations, cookies, COOKIE_NAME)
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
    let identity = permit
        .ok()
        .and_then(|permit| permit.identity)
        .expect("an identity");
    let live = &parts.snapshot.settings;
    let dropped: &IdentityHeaderNames = &live.identity_header_names;
    let routes = live.routes.routes();
    let names: &IdentityHeaders = &routes.first().expect("a route").identity_headers;
    let peer = [198, 51, 100, 7].into();
    let list: FieldList<'_> = presented.iter().map(Field::from).collect();
    let fields = Fields::new(&list);
    let origin = client_origin::resolve(peer, false, &[], ForwardedBy::XForwardedFor, fields);
    let address = HeaderValue::from_static("198.51.100.7");
    let host = HeaderValue::from_static("shop.example.com");
    let mut group = criterion.benchmark_group("headers");
    group.bench_function("strip", |bench| {
        bench.iter_batched_ref(
            || presented.clone(),
            |fields| {
                written::strip_untrusted(fields, dropped, &HeaderEdits::default(), false);
                written::strip_credentials(fields, COOKIE_NAME, false);
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("write", |bench| {
        bench.iter_batched_ref(
            || presented.clone(),
            |fields| {
                let identity = written::write_identity(fields, names, &identity);
                let origin = written::write_origin(fields, &origin, &address, &host);
                identity.is_ok() && origin.is_ok()
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}
