//! Certificate authorities that are down, that refuse, and that do what they should not: bounded, with
//! clear errors, and without harm to the certificates that are there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::acme::{config, orders, served, sql};
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::pebble::{Behavior, Pebble};
use crate::support::ports;
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

const DOMAIN: &str = "shop.example";
const OTHER_DOMAIN: &str = "other.example";
const ORDERED: Duration = Duration::from_secs(120);

/// An authority of the test's own, over HTTP on loopback.
struct FakeAuthority {
    address: SocketAddr,
    orders: Arc<AtomicUsize>,
}

/// Writes the response to the request for a path.
type Respond = fn(&mut TcpStream, &str, SocketAddr);

impl FakeAuthority {
    fn start(respond: Respond) -> FakeAuthority {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let orders = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&orders);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let path = read_request(&stream);
                if path == "/order" {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                respond(&mut stream, &path, address);
            }
        });
        FakeAuthority { address, orders }
    }

    fn settings(&self, domain: &str) -> Value {
        json!({
            "directory": format!("http://{}/directory", self.address),
            "accept_terms": true,
            "domains": [domain],
        })
    }

    fn config(&self, upstream: &Upstream) -> Config {
        config(upstream, &self.settings(DOMAIN))
    }
}

/// Reads a request with its body, and returns its path.
fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    let _ = reader.read_line(&mut first);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let _ = reader.read_exact(&mut vec![0; length]);
    first.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn write(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    );
}

fn directory(origin: &str) -> String {
    let url = |path| format!("http://{origin}/{path}");
    json!({
        "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
        "revokeCert": url("revoke"), "keyChange": url("key"),
    })
    .to_string()
}

/// An authority that limits orders.
fn limit_orders(stream: &mut TcpStream, path: &str, address: SocketAddr) {
    let account = format!("replay-nonce: a\r\nlocation: http://{address}/account/1\r\n");
    match path {
        "/directory" => write(stream, "200 OK", "", &directory(&address.to_string())),
        "/nonce" => write(stream, "200 OK", "replay-nonce: a\r\n", ""),
        "/account" => write(stream, "201 Created", &account, r#"{"status":"valid"}"#),
        _ => write(
            stream,
            "429 Too Many Requests",
            "replay-nonce: a\r\nretry-after: 7200\r\n",
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many\norders"}"#,
        ),
    }
}

#[test]
fn rate_limit_of_the_authority_is_respected() {
    let authority = FakeAuthority::start(limit_orders);
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(authority.config(&upstream));
    eventually("the limit is counted", || {
        (orders(&gateway, "rate_limited") == 1.0).then_some(())
    });
    let logs = gateway.wait_for_log("and there is no valid one");
    assert!(logs.contains("rateLimited: too many orders"), "{logs}");
    assert!(logs.contains("\"retry_in_s\":7200"), "{logs}");
    assert!(logs.contains("\"event\":\"certificate_failed\""), "{logs}");
    // A restart does not shorten the pause, which is in the database once the lease has ended.
    eventually("the lease ends", || {
        let leased = sql(&gateway.config, "SELECT leased_until FROM acme_accounts");
        (leased == Some(0)).then_some(())
    });
    gateway.restart();
    let domains = json!([DOMAIN, "other.example"]);
    gateway.reload("applied", |config| {
        config.put("/listeners/0/tls/acme/domains", domains);
    });
    within(ORDERED, "the other domain is ordered", || {
        (orders(&gateway, "rate_limited") == 1.0).then_some(())
    });
    assert_eq!(authority.orders.load(Ordering::SeqCst), 2);
}

#[test]
fn hostile_directories_are_errors() {
    let upstream = Upstream::start();
    let cases: [(Respond, &str); 7] = [
        (
            |stream, _, _| write(stream, "302 Found", "location: http://127.0.0.2/\r\n", ""),
            "redirects to another address, which is not followed",
        ),
        (
            |stream, _, _| write(stream, "200 OK", "", "<html>"),
            "the response is not one of ACME",
        ),
        (
            |stream, _, _| write(stream, "200 OK", "", &directory("127.0.0.2:1")),
            "names an address that is not of its directory's origin",
        ),
        (
            |stream, _, _| {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n");
                // Without an end.
                while stream.write_all(&[b' '; 4096]).is_ok() {}
            },
            "the response has more than 262144 bytes",
        ),
        (
            |stream, path, address| match path {
                "/directory" => write(stream, "200 OK", "", &directory(&address.to_string())),
                _ => write(stream, "500 Oops", "", "not JSON"),
            },
            "the authority responds with status 500",
        ),
        (
            |stream, _, _| write(stream, "503 Oops", "", "<html>"),
            "the authority responds with status 503",
        ),
        (
            |stream, _, _| drop(stream.shutdown(std::net::Shutdown::Both)),
            "does not respond",
        ),
    ];
    for (respond, expected) in cases {
        let authority = FakeAuthority::start(respond);
        let gateway = Gateway::start(authority.config(&upstream));
        let logs = gateway.wait_for_log("and there is no valid one");
        assert!(logs.contains(expected), "{expected}: {logs}");
        assert!(orders(&gateway, "error") >= 1.0);
    }
}

/// As a proxy in front of the authority limits requests.
#[test]
fn rate_limit_without_a_reason_is_respected() {
    let authority = FakeAuthority::start(|stream, _, _| {
        write(stream, "429 Too Many Requests", "retry-after: 7200\r\n", "");
    });
    let upstream = Upstream::start();
    let gateway = Gateway::start(authority.config(&upstream));
    let logs = gateway.wait_for_log("and there is no valid one");
    assert!(
        logs.contains("the authority responds with status 429"),
        "{logs}"
    );
    assert!(logs.contains("\"retry_in_s\":7200"), "{logs}");
    assert_eq!(orders(&gateway, "rate_limited"), 1.0);
}

/// An authority that needs more than a minute for what comes before an order.
fn slow_authority() -> FakeAuthority {
    FakeAuthority::start(|stream, path, address| {
        std::thread::sleep(Duration::from_secs(20));
        limit_orders(stream, path, address);
    })
}

/// A gateway with a listener for each authority, the first of which is slow.
fn beside_a_slow_authority(upstream: &Upstream, slow: &FakeAuthority, other: &Value) -> Config {
    let mut config = slow.config(upstream);
    let bind = ports::free().to_string();
    config.add_listener(json!({ "bind": bind, "tls": { "acme": other } }));
    config
}

#[test]
fn slow_authority_delays_no_orders_at_another() {
    let (slow, other) = (slow_authority(), FakeAuthority::start(limit_orders));
    let upstream = Upstream::start();
    let config = beside_a_slow_authority(&upstream, &slow, &other.settings(OTHER_DOMAIN));
    let _gateway = Gateway::start(config);
    within(ORDERED, "the other authority has an order", || {
        (other.orders.load(Ordering::SeqCst) == 1).then_some(())
    });
    assert_eq!(slow.orders.load(Ordering::SeqCst), 0);
}

#[test]
fn certificates_are_served_while_an_authority_is_slow() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let (slow, upstream) = (slow_authority(), Upstream::start());
    let other = pebble.settings(&[OTHER_DOMAIN], "tls-alpn-01");
    let config = beside_a_slow_authority(&upstream, &slow, &other);
    let address = config.listener(2);
    pebble.start(&Behavior {
        tls: Some(address),
        ..Behavior::default()
    });
    let root = pebble.root();
    let _gateway = Gateway::start(config);
    within(ORDERED, "the certificate is served", || {
        served(address, OTHER_DOMAIN, &root)
    });
    assert_eq!(slow.orders.load(Ordering::SeqCst), 0);
}

#[test]
fn authority_that_never_responds_delays_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = Upstream::start();
    let acme = json!({
        "directory": format!("http://{}/", listener.local_addr().unwrap()),
        "accept_terms": true,
        "domains": [DOMAIN],
    });
    let config = config(&upstream, &acme);
    let plain = config.listener(1);
    let gateway = Gateway::start(config);
    assert_eq!(Request::get("/public/a").send(plain).status, 200);
    // The listener is open, and refuses handshakes for lack of a certificate.
    let client = tls::client(&tls::certificate(DOMAIN), &["http/1.1"]);
    let refused = tls::connect(gateway.public, DOMAIN, &client).err().unwrap();
    assert!(refused.to_string().contains("AccessDenied"), "{refused}");
    within(ORDERED, "the authority is given up", || {
        (orders(&gateway, "error") >= 1.0).then_some(())
    });
}

#[test]
fn authority_that_is_down_at_the_start_is_tried_again() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    let behavior = Behavior {
        tls: Some(config.listener(0)),
        ..Behavior::default()
    };
    let gateway = Gateway::start(config);
    eventually("the failure is counted", || {
        (orders(&gateway, "error") >= 1.0).then_some(())
    });
    pebble.start(&behavior);
    within(ORDERED, "the certificate is issued", || {
        (orders(&gateway, "issued") == 1.0).then_some(())
    });
}

#[test]
fn refused_renewal_keeps_the_certificate() {
    let Some(mut pebble) = Pebble::reserve() else {
        return;
    };
    let upstream = Upstream::start();
    let config = config(&upstream, &pebble.settings(&[DOMAIN], "tls-alpn-01"));
    let mut behavior = Behavior {
        tls: Some(config.listener(0)),
        ..Behavior::default()
    };
    pebble.start(&behavior);
    let root = pebble.root();
    let gateway = Gateway::start(config);
    let served = || served(gateway.public, DOMAIN, &root);
    let first = within(ORDERED, "the certificate is served", served);
    // The new authority does not know the account either.
    behavior.blocked = vec![DOMAIN.to_owned()];
    pebble.start(&behavior);
    sql(&gateway.config, "UPDATE acme_certificates SET renew_at = 0");
    within(ORDERED, "the order is refused", || {
        (orders(&gateway, "refused") == 1.0).then_some(())
    });
    let logs = gateway.wait_for_log("rejectedIdentifier");
    assert!(logs.contains("the previous one is still valid"), "{logs}");
    assert_eq!(served(), Some(first.clone()));

    // Nor does a challenge that fails replace it.
    behavior.blocked = Vec::new();
    behavior.tls = None;
    pebble.start(&behavior);
    sql(&gateway.config, "UPDATE acme_certificates SET retry_at = 0");
    within(ORDERED, "the challenge fails", || {
        (orders(&gateway, "refused") == 2.0).then_some(())
    });
    assert_eq!(served(), Some(first));
}
