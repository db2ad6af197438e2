//! The client's address, on a socket and behind proxies.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

fn one_request_per_address() -> Value {
    json!({ "algorithm": "sliding_window", "limit": 1, "window": "10m", "key": "ip" })
}

#[test]
fn forwarded_address_is_used_only_from_trusted_proxies() {
    let send = |trusted: Value| {
        let upstream = Upstream::start();
        let config = Config::new(upstream.address)
            .set("/listeners/0/trusted_proxies", trusted)
            .limit("per-address", one_request_per_address());
        let gateway = Gateway::start(config);
        let from = |address: &str| {
            gateway
                .request(&Request::get("/public/a").header("X-Forwarded-For", address))
                .status
        };
        // One /64 is one client; an IPv4-mapped address is the IPv4 address.
        [
            from("192.0.2.1"),
            from("192.0.2.2"),
            from("::ffff:192.0.2.1"),
            from("2001:db8:0:1::1"),
            from("2001:db8:0:1:ffff::2"),
            from("2001:db8:0:2::1"),
            from("198.51.100.9, 192.0.2.2"),
        ]
    };
    assert_eq!(
        send(json!(["127.0.0.0/8"])),
        [200, 200, 429, 200, 429, 200, 429]
    );
    assert_eq!(send(json!([])), [200, 429, 429, 429, 429, 429, 429]);
}

#[test]
fn ipv6_slash_64_counts_as_one_client() {
    let Ok(probe) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    };
    let address = probe.local_addr().unwrap();
    drop(probe);
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .set("/listeners/0/bind", json!(address.to_string()))
        .limit("per-address", one_request_per_address());
    let gateway = Gateway::start(config);
    assert!(matches!(gateway.public, SocketAddr::V6(_)));
    assert_eq!(gateway.get("/public/a").status, 200);
    gateway.get("/public/a").assert_refused(429, "RATE_LIMITED");
}
