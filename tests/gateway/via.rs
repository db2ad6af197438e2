//! `Via` on forwarded messages, and requests that loop.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// The route of everything under `/loop`, which leads to `server`.
fn with_upstream(config: Config, server: &str) -> Config {
    let route = json!({
        "name": "loop", "match": { "prefix": "/loop" }, "auth": "none", "upstream": "loop",
    });
    config
        .route(route)
        .set("/upstreams/loop", json!({ "servers": [server] }))
}

#[test]
fn via_names_the_gateway_in_both_directions() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let request =
        Request::get("/public/reply?Via=1.0%20cache").header("Via", "1.0 fred, 1.1 nowhere");
    let response = gateway.request(&request);
    let sent = response.echo().0["headers"].clone();
    let sent: Vec<String> = sent
        .as_array()
        .unwrap()
        .iter()
        .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case("via"))
        .map(|header| header[1].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(sent[0], "1.0 fred, 1.1 nowhere");
    let name = sent[1].strip_prefix("1.1 portcullis-").unwrap();
    let received = response.all("via");
    assert_eq!(received.len(), 2, "{received:?}");
    assert_eq!(received[1], format!("1.1 portcullis-{name}"));
    let (status, body) = Http2::connect(gateway.public).request("GET", "/public/a", &[]);
    assert_eq!(status, 200);
    assert!(body.contains(&format!("2 portcullis-{name}")), "{body}");
    // What the gateway makes itself has passed no proxy.
    assert!(gateway.get("/nowhere").header("via").is_none());
}

#[test]
fn looped_request_is_refused_at_first_return() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let own = format!("http://{}", config.listener(0));
    let gateway = Gateway::start(with_upstream(config, &own));
    gateway.get("/loop/a").assert_refused(508, "LOOP_DETECTED");
    let (status, body) = Http2::connect(gateway.public).request("GET", "/loop/a", &[]);
    assert_eq!(status, 508);
    assert!(body.contains("LOOP_DETECTED"), "{body}");
    eventually("both passes of both requests are counted", || {
        let counted = gateway.metric(
            "portcullis_requests_total",
            &["route=\"loop\"", "code=\"508\""],
        );
        (counted == 4.0).then_some(())
    });
    let line = eventually("the access line", || {
        let mut events = gateway.events().into_iter();
        events.find(|event| event["code"] == "LOOP_DETECTED")
    });
    assert_eq!(line["route"], "loop");
}

#[test]
fn chained_gateways_are_no_loop_but_cycles_are() {
    let upstream = Upstream::start();
    let last = Config::new(upstream.address);
    let first = Config::new(last.listener(0));
    let (to_first, to_last) = (first.listener(0), last.listener(0));
    let _last = Gateway::start(with_upstream(last, &format!("http://{to_first}")));
    let first = Gateway::start(with_upstream(first, &format!("http://{to_last}")));
    let response = first.get("/public/a");
    response.assert_ok();
    assert_eq!(response.all("via").len(), 2);
    first.get("/loop/a").assert_refused(508, "LOOP_DETECTED");
}
