//! Public test vectors, read from a folder that `PORTCULLIS_VECTORS` names.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::client::{Client, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// Vectors to which this gateway responds otherwise than their authors expect, each with its
/// reason.
const EXPECTED_DEVIATIONS: &[(&str, &str)] = &[
    (
        "COMP-OPTIONS-STAR",
        "a proxy has no route for `*`: 400 or 404",
    ),
    (
        "COMP-405-ALLOW",
        "which methods exist is the upstream's to say; the echo takes DELETE",
    ),
    ("COMP-NO-CL-IN-204", "the echo answers OPTIONS with 200"),
    ("COMP-OPTIONS-ALLOW", "the echo sends no Allow"),
    (
        "COMP-DATE-HEADER",
        "the echo has no clock, and a proxy need not add one (RFC 9110, 6.6.1)",
    ),
    ("COMP-LONG-URL-OK", "judged by the head's size"),
    (
        "COMP-UNKNOWN-METHOD",
        "methods are the upstream's business, and the echo takes any",
    ),
    ("MAL-LONG-METHOD", "the head is over its size first: 431"),
    (
        "MAL-POST-CL-HUGE-NO-BODY",
        "the route's body limit answers first: 413",
    ),
    (
        "MAL-INCOMPLETE-REQUEST",
        "the head's deadline answers: 408, which is the timeout that it asks for",
    ),
    (
        "NORM-UNDERSCORE-CL",
        "dropped before the upstream, which the status does not show; see hygiene.rs",
    ),
    (
        "NORM-UNDERSCORE-TE",
        "dropped before the upstream, which the status does not show; see hygiene.rs",
    ),
    (
        "COMP-EXPECT-UNKNOWN",
        "obfuscated expectations are how 0.CL attacks begin: 400, for every form that is not 100-continue",
    ),
    ("NORM-SP-BEFORE-COLON-CL", "refused with 400, as asked"),
    ("NORM-TAB-IN-NAME", "refused with 400, as asked"),
];

/// The folder of public test vectors, or a word that the test is skipped.
fn vectors(name: &str) -> Option<Value> {
    let Some(folder) = std::env::var_os("PORTCULLIS_VECTORS") else {
        eprintln!("skipped: PORTCULLIS_VECTORS does not name a folder with {name}");
        return None;
    };
    let file = std::fs::read(std::path::Path::new(&folder).join(name)).unwrap();
    Some(serde_json::from_slice(&file).unwrap())
}

/// A gateway that forwards every path, and is impatient.
fn start_without_auth(upstream: &Upstream) -> Gateway {
    let mut config = Config::new(upstream.address).set(
        "/listeners/0/limits",
        json!({ "head": "16KiB", "head_timeout": "1s" }),
    );
    let route =
        json!({ "name": "all", "match": { "prefix": "/" }, "auth": "none", "upstream": "echo" });
    config.put("/routes", json!([route]));
    Gateway::start(config)
}

#[test]
fn public_http_vectors_get_expected_responses() {
    let Some(vectors) = vectors("http11probe.json") else {
        return;
    };
    let otherwise: HashMap<_, _> = EXPECTED_DEVIATIONS.iter().copied().collect();
    let upstream = Upstream::start();
    let gateway = start_without_auth(&upstream);
    let mut wrong = Vec::new();
    let mut judged = 0;
    for test in vectors["tests"].as_array().unwrap() {
        let id = test["id"].as_str().unwrap();
        let skipped = test["scored"] != true || test["suite"] == "Capabilities";
        if skipped || otherwise.contains_key(id) {
            continue;
        }
        let (got, fine) = if let Some(raw) = test["raw_b64"].as_str() {
            let got = probe(&gateway, &STANDARD.decode(raw).unwrap());
            (got, acceptable(test, got))
        } else if let Some(first) = test["sequence"][0]["raw_b64"].as_str() {
            probe_desync(&gateway, &STANDARD.decode(first).unwrap())
        } else {
            continue;
        };
        judged += 1;
        if !fine {
            wrong.push(format!("{id}: {got:?}, expected {}", expectation(test)));
        }
    }
    assert!(judged > 100, "only {judged} vectors were there");
    assert!(
        wrong.is_empty(),
        "{} of {judged}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Sends a request that hides a second one: one refusal or one response, and then the end.
fn probe_desync(gateway: &Gateway, poison: &[u8]) -> (Option<u16>, bool) {
    let stream = connect_socket(gateway.public).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut client = Client::from_stream(stream);
    client.try_send(poison).ok();
    let Ok(first) = client.read_response_to("GET") else {
        return (None, true);
    };
    let refused = first.status == 400 || first.status == 408;
    let second = client.read_response_to("GET");
    (Some(first.status), refused && second.is_err())
}

#[test]
fn public_vector_paths_are_unchanged_or_refused() {
    let Some(vectors) = vectors("traefik_paths.json") else {
        return;
    };
    let upstream = Upstream::start();
    let gateway = start_without_auth(&upstream);
    for group in [
        "sanitize",
        "path_operations",
        "encoded_characters",
        "routing_path",
    ] {
        for case in vectors[group].as_array().unwrap() {
            let path = case["input"].as_str().or(case["path"].as_str()).unwrap();
            let response = gateway.get(path);
            let odd = [
                "/..", "/./", "//", "%2f", "%5c", "%00", "%3b", "%25", "%3f", "%23",
            ];
            // The slash of a dot segment may stand at either side of it, the dots may be encoded.
            let read = path.to_lowercase().replace("%2e", ".");
            let odd = odd.iter().any(|part| read.contains(part));
            match response.status {
                400 => assert!(odd, "{path} is harmless"),
                _ => assert!(
                    !odd && response.echo().target() == path,
                    "{path}: {response:?}"
                ),
            }
        }
    }
}

fn probe(gateway: &Gateway, bytes: &[u8]) -> Option<u16> {
    let stream = connect_socket(gateway.public).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut client = Client::from_stream(stream);
    client.try_send(bytes).ok();
    client.read_head().ok().map(|response| response.status)
}

fn expectation(test: &Value) -> String {
    let exact = test["expected_status"]
        .as_str()
        .map(|s| s.replace("Range2xx", "2xx"));
    let close = if test["allow_close"] == true {
        " or close"
    } else {
        ""
    };
    exact.map_or_else(
        || test["expected_text"].as_str().unwrap_or("").to_owned(),
        |e| e + close,
    )
}

/// Reads expectations such as `400 or close`, `!101`, `400/501 or 2xx+close`.
fn acceptable(test: &Value, got: Option<u16>) -> bool {
    let expected = expectation(test);
    let Some(status) = got else {
        return expected.contains("close") || expected.contains("timeout");
    };
    if expected.starts_with("!101") || expected.starts_with("non-") {
        return status != 101 && status >= 200;
    }
    let listed = expected
        .split(|c: char| !c.is_ascii_digit())
        .any(|n| n.parse() == Ok(status));
    listed || (expected.contains("2xx") && (200..300).contains(&status))
}
