//! A configuration in several files, or on standard input, is reloaded as one.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, binary, signal};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually, within};

const ROUTE: &str =
    "routes: [{ name: added, match: { prefix: /added }, auth: none, upstream: echo }]\n";

fn await_status(gateway: &Gateway, path: &str, status: u16) {
    eventually(&format!("{path} is {status}"), || {
        (gateway.get(path).status == status).then_some(())
    });
}

#[test]
fn changes_of_included_files_are_reloaded() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/include", json!(["routes", "more.yaml"]));
    let routes = config.folder().join("routes");
    fs::create_dir(&routes).unwrap();
    config.write_beside("more.yaml", "hsts: null\n");
    let gateway = Gateway::start(config);
    gateway.get("/added").assert_refused(404, "ROUTE_NOT_FOUND");

    // A file that is added to the folder, changed, and removed.
    fs::write(routes.join("a.yaml"), ROUTE).unwrap();
    await_status(&gateway, "/added", 200);
    let renamed = ROUTE.replace("/added", "/renamed");
    fs::write(routes.join("a.yaml"), &renamed).unwrap();
    await_status(&gateway, "/renamed", 200);
    fs::remove_file(routes.join("a.yaml")).unwrap();
    await_status(&gateway, "/renamed", 404);

    // A file that is named.
    gateway.config.write_beside("more.yaml", ROUTE);
    await_status(&gateway, "/added", 200);
}

#[test]
fn invalid_included_file_is_named_and_its_correction_is_reloaded() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/include", json!("routes"));
    let routes = config.folder().join("routes");
    fs::create_dir(&routes).unwrap();
    let gateway = Gateway::start(config);
    let file = routes.join("a.yaml");
    fs::write(
        &file,
        format!("# Routes.\n{}", ROUTE.replace("echo", "ecko")),
    )
    .unwrap();
    let expected = format!("{}:2:", file.display());
    let logs = gateway.wait_for_log(&expected);
    assert!(logs.contains("did you mean"), "{logs}");
    gateway.get("/public/a").assert_ok();
    // No file of the configuration in force has changed.
    fs::write(&file, ROUTE).unwrap();
    await_status(&gateway, "/added", 200);
}

#[test]
fn configuration_on_standard_input_is_kept_for_reloads() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/include", json!("added.yaml"));
    config.write_beside("added.yaml", "hsts: null\n");
    let mut child = Command::new(binary())
        .args(["run", "--config", "-"])
        .current_dir(config.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let text = config.file.to_string();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    eventually("the gateway is ready", || {
        let response = Request::get("/ready").try_send(config.admin()).ok()?;
        (response.status == 200).then_some(())
    });
    let status = || Request::get("/added").send(config.listener(0)).status;
    assert_eq!(status(), 404);
    config.write_beside("added.yaml", ROUTE);
    eventually("the route is there", || (status() == 200).then_some(()));
    signal(child.id(), "HUP");
    config.write_beside("added.yaml", "hsts: null\n");
    eventually("the route is gone", || (status() == 404).then_some(()));
    signal(child.id(), "TERM");
    let exit = within(DEADLINE, "it ends", || child.try_wait().unwrap());
    assert_eq!(exit.code(), Some(0));
}
