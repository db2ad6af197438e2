//! Certificates by ACME, from a real authority: ordered once, kept, renewed, and served by every gateway
//! of a fleet.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, run};
use crate::support::pebble::{Behavior, Pebble};
use crate::support::ports;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::tls::{self, Certificate};
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

const DOMAIN: &str = "shop.example";
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OTHER_KEY: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";

/// How long an order may take on a busy machine, with failed attempts before it.
const ORDERED: Duration = Duration::from_secs(120);

/// A gateway with a TLS listener for [`DOMAIN`] and a plain one.
pub(crate) fn config(upstream: &Upstream, acme: &Value) -> Config {
    let config = Config::new(upstream.address)
        .set("/encryption", json!({ "key": KEY }))
        .set("/listeners/0/tls", json!({ "acme": acme }));
    let plain = json!({ "bind": ports::free().to_string() });
    let tls = config.file["listeners"][0].clone();
    config.set("/listeners", json!([tls, plain]))
}

/// The certificate with which a listener shows that it is the domain.
pub(crate) fn served(
    address: SocketAddr,
    domain: &str,
    root: &Certificate,
) -> Option<CertificateDer<'static>> {
    let config = tls::client(root, &["http/1.1"]);
    let stream = tls::connect(address, domain, &config).ok()?;
    Some(
        stream
            .conn
            .peer_certificates()?
            .first()?
            .clone()
            .into_owned(),
    )
}

fn wait_for_certificate(
    gateway: &Gateway,
    domain: &str,
    root: &Certificate,
) -> CertificateDer<'static> {
    within(ORDERED, "the certificate is served", || {
        served(gateway.public, domain, root)
    })
}

pub(crate) fn orders(gateway: &Gateway, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    gateway.metric("portcullis_acme_orders_total", &[&label])
}

/// Runs SQL on the SQLite database of a gateway, and returns the number that it selects, if any.
pub(crate) fn sql(config: &Config, text: &'static str) -> Option<i64> {
    let path = config.folder().join("people.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let number = sqlx::query_scalar(text).fetch_optional(&pool).await;
        pool.close().await;
        number.unwrap()
    })
}

#[test]
fn certificate_is_ordered_once_and_survives_a_restart() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    pebble.start(&Behavior {
        tls: Some(config.listener(0)),
        ..Behavior::default()
    });
    let root = pebble.root();
    let mut gateway = Gateway::start(config);
    let first = wait_for_certificate(&gateway, DOMAIN, &root);
    let client = tls::client(&root, &["http/1.1"]);
    let stream = tls::connect(gateway.public, DOMAIN, &client).unwrap();
    let echo = Client::from_stream(stream)
        .request(&Request::get("/public/a"))
        .echo();
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(orders(&gateway, "issued"), 1.0);
    let label = format!("certificate=\"{DOMAIN}\"");
    let expiry = gateway.metric("portcullis_tls_certificate_not_after_seconds", &[&label]);
    assert!(expiry > 1_700_000_000.0, "{expiry}");
    gateway.wait_for_log("certificate_issued");
    // What is kept is sealed.
    let read = |name| std::fs::read(gateway.config.folder().join(name)).unwrap();
    let database = [read("people.db"), read("people.db-wal")].concat();
    let database = String::from_utf8_lossy(&database);
    assert!(database.contains("BEGIN CERTIFICATE"));
    assert!(!database.contains("PRIVATE KEY"));
    assert!(!gateway.logs().contains("PRIVATE KEY"));

    pebble.stop();
    gateway.restart();
    assert_eq!(served(gateway.public, DOMAIN, &root), Some(first));
    assert_eq!(orders(&gateway, "issued"), 0.0);
    assert_eq!(orders(&gateway, "error"), 0.0);
}

#[test]
fn http_challenge_is_responded_to_before_routes_and_redirects() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let mut acme = pebble.settings(&[DOMAIN], "http-01");
    acme["email"] = Value::Null;
    let config = config(&upstream, &acme).set("/listeners/1/redirect_to_https", json!(true));
    let plain = config.listener(1);
    pebble.start(&Behavior {
        http: Some(plain),
        // Requests with these are repeated.
        rejected_nonces: 30,
        ..Behavior::default()
    });
    let root = pebble.root();
    let gateway = Gateway::start(config);
    wait_for_certificate(&gateway, DOMAIN, &root);
    for path in ["unknown-token", "a/b", ""] {
        let path = format!("/.well-known/acme-challenge/{path}");
        let response = Request::get(&path).send(plain);
        assert_eq!(response.status, 308, "{path}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn fleet_orders_once() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let postgres = Postgres::server();
    let database = postgres.database();
    let acme = pebble.settings(&[DOMAIN, "www.shop.example"], "tls-alpn-01");
    let config = || {
        config(&upstream, &acme)
            .store(&redis.url())
            .postgres(postgres.address, &database)
    };
    let (one, two) = (config(), config());
    pebble.start(&Behavior {
        tls: Some(two.listener(0)),
        ..Behavior::default()
    });
    let root = pebble.root();
    let fleet = std::thread::scope(|scope| {
        let one = scope.spawn(|| Gateway::start(one));
        let two = scope.spawn(|| Gateway::start(two));
        [one.join().unwrap(), two.join().unwrap()]
    });
    for domain in [DOMAIN, "www.shop.example"] {
        let by = |gateway: &Gateway| wait_for_certificate(gateway, domain, &root);
        assert_eq!(by(&fleet[0]), by(&fleet[1]));
    }
    let issued = fleet.each_ref().map(|gateway| orders(gateway, "issued"));
    assert_eq!(issued[0] + issued[1], 2.0, "{issued:?}");
    let (logs, created) = (
        fleet.each_ref().map(Gateway::logs),
        "an ACME account was created",
    );
    let accounts = logs.iter().map(|logs| logs.matches(created).count());
    assert_eq!(accounts.sum::<usize>(), 1);
}

#[test]
fn gateway_that_orders_nothing_responds_to_challenges_of_the_fleet() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    for challenge in ["tls-alpn-01", "http-01"] {
        let (redis, upstream) = (Redis::start(), Upstream::start());
        let acme = pebble.settings(&[DOMAIN], challenge);
        let orders = config(&upstream, &acme).store(&redis.url());
        let mut elsewhere = acme.clone();
        elsewhere["directory"] = json!(format!("https://{}/", ports::free()));
        let responds = config(&upstream, &elsewhere).store(&redis.url());
        pebble.start(&Behavior {
            tls: Some(responds.listener(0)),
            http: Some(responds.listener(1)),
            ..Behavior::default()
        });
        let root = pebble.root();
        let _responds = Gateway::start(responds);
        let orders = Gateway::start(orders);
        wait_for_certificate(&orders, DOMAIN, &root);
    }
}

#[test]
fn short_lived_certificate_is_renewed_in_time() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    pebble.start(&Behavior {
        tls: Some(config.listener(0)),
        life: Some(15),
        ..Behavior::default()
    });
    let root = pebble.root();
    let gateway = Gateway::start(config);
    let first = wait_for_certificate(&gateway, DOMAIN, &root);
    let second = within(ORDERED, "another certificate is served", || {
        served(gateway.public, DOMAIN, &root).filter(|served| *served != first)
    });
    within(ORDERED, "a third certificate is served", || {
        let served = served(gateway.public, DOMAIN, &root);
        served.filter(|served| *served != first && *served != second)
    });
    assert_eq!(orders(&gateway, "refused"), 0.0);
}

#[test]
fn reload_orders_for_added_domains_only() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    pebble.start(&Behavior {
        tls: Some(config.listener(0)),
        ..Behavior::default()
    });
    let root = pebble.root();
    let mut gateway = Gateway::start(config);
    let first = wait_for_certificate(&gateway, DOMAIN, &root);
    gateway.reload("applied", |config| {
        let domains = json!(["new.example", DOMAIN]);
        config.put("/listeners/0/tls/acme/domains", domains);
    });
    // Without a pause in which it is not.
    assert_eq!(served(gateway.public, DOMAIN, &root), Some(first.clone()));
    wait_for_certificate(&gateway, "new.example", &root);
    assert_eq!(served(gateway.public, DOMAIN, &root), Some(first));
    assert_eq!(orders(&gateway, "issued"), 2.0);
    gateway.reload("applied", |config| {
        config.put("/listeners/0/tls/acme/domains", json!(["new.example"]));
    });
    let label = [format!("certificate=\"{DOMAIN}\"")];
    let label = label.each_ref().map(String::as_str);
    let name = "portcullis_tls_certificate_not_after_seconds";
    eventually("a removed domain has no expiry", || {
        (gateway.metric(name, &label) == 0.0).then_some(())
    });
    assert_eq!(served(gateway.public, DOMAIN, &root), None);
}

#[test]
fn certificate_of_a_file_is_served_beside_those_by_acme() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    let own = tls::certificate("other.example");
    let cert = config.write_beside("site.pem", &own.cert);
    let key = config.write_beside("site.key", &own.key);
    let files = json!([{ "cert": cert, "key": key }]);
    let config = config.set("/listeners/0/tls/certificates", files);
    pebble.start(&Behavior {
        tls: Some(config.listener(0)),
        ..Behavior::default()
    });
    let root = pebble.root();
    let gateway = Gateway::start(config);
    assert!(served(gateway.public, "other.example", &own).is_some());
    wait_for_certificate(&gateway, DOMAIN, &root);
    assert!(served(gateway.public, "other.example", &own).is_some());
    assert_eq!(served(gateway.public, "other.example", &root), None);
}

#[test]
fn keys_of_certificates_are_sealed_anew() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    pebble.start(&Behavior {
        tls: Some(config.listener(0)),
        ..Behavior::default()
    });
    let root = pebble.root();
    let mut gateway = Gateway::start(config);
    let first = wait_for_certificate(&gateway, DOMAIN, &root);
    let mut restart_with = |keys: Value| {
        gateway.config.put("/encryption", keys);
        gateway.config.write();
        gateway.restart();
        served(gateway.public, DOMAIN, &root)
    };
    let rotated = restart_with(json!({ "key": OTHER_KEY, "also": [KEY] }));
    assert_eq!(rotated.as_ref(), Some(&first));
    assert_eq!(restart_with(json!({ "key": OTHER_KEY })), Some(first));
    // Neither another key nor a failure to open replaces it before it is due.
    assert_eq!(restart_with(json!({ "key": KEY })), None);
    gateway.wait_for_log("does not open with the keys in encryption");
    assert_eq!(orders(&gateway, "issued"), 0.0);
}

#[test]
fn external_account_is_bound() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let mut acme = pebble.settings(&[DOMAIN], "tls-alpn-01");
    acme["external_account"] = json!({ "key_id": "kid-1", "key": key });
    let config = config(&upstream, &acme);
    pebble.start(&Behavior {
        tls: Some(config.listener(0)),
        external_account: Some(("kid-1".to_owned(), key.to_owned())),
        ..Behavior::default()
    });
    let root = pebble.root();
    let gateway = Gateway::start(config);
    wait_for_certificate(&gateway, DOMAIN, &root);
    assert!(!gateway.logs().contains(key));
}

#[test]
fn check_connect_fetches_the_directory() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    let config = config.set("/identity/builtin/registration", json!("closed"));
    let file = config.write();
    let check = || run(&["check", "--connect", "--config", file.to_str().unwrap()]);
    let (status, _, err) = check();
    assert_eq!(status, 0, "{err}");
    let name = format!("acme {}: ", pebble.directory());
    assert!(
        err.contains(&format!("warning: {name}the authority does not respond")),
        "{err}"
    );
    pebble.start(&Behavior::default());
    let (status, out, err) = check();
    assert_eq!(status, 0, "{err}");
    assert!(
        out.contains(&format!(
            "{name}directory fetched; accepted terms of service: "
        )),
        "{out}"
    );
}
