//! The endpoints against their own description, by a fuzzer.

use std::process::Command;

use serde_json::json;

use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[test]
fn a_fuzzer_that_knows_the_description_finds_nothing() {
    let program = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    if Command::new(&program).arg("--version").output().is_err() {
        eprintln!("skipped: `{program}` is not installed (pip install schemathesis)");
        return;
    }
    let many = json!({ "limit": 1_000_000, "window": "1m" });
    let config = Config::new(Upstream::start().address).set(
        "/identity/builtin/sign_in_limits",
        json!({ "attempts_per_address": many, "failures_per_account": many }),
    );
    let gateway = Gateway::start(config);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi/run");
    let output = Command::new(script)
        .arg(format!("http://{}", gateway.public))
        .args(["--max-examples", "15"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
