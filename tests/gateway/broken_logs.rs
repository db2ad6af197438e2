//! Standard streams that fail or are not read affect only their own lines.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// A stream to write to, and whatever has to stay open meanwhile.
type Output = (Stdio, Option<UnixStream>);

fn closed_pipe() -> Output {
    let (_, writer) = io::pipe().unwrap();
    (writer.into(), None)
}

fn full_disk() -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    (full.into(), None)
}

/// A full pipe without a reader: each write blocks.
fn unread_pipe() -> Output {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b'a'; 4096]).is_ok() {}
    writer.set_nonblocking(false).unwrap();
    (OwnedFd::from(writer).into(), Some(reader))
}

#[test]
fn log_on_closed_pipe_does_not_affect_service() {
    assert_works_with(closed_pipe, true);
}

#[test]
fn log_on_full_disk_does_not_affect_service() {
    assert_works_with(full_disk, true);
}

#[test]
fn unread_log_pipe_does_not_affect_service() {
    assert_works_with(unread_pipe, false);
}

fn assert_works_with(output: fn() -> Output, counted: bool) {
    let mut redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/timeout", json!("2s"));
    let ((stdout, _out), (stderr, _err)) = (output(), output());
    let mut gateway = Gateway::start_with_output(config, stdout, stderr);
    let alice = gateway.register("alice@example.com");
    assert!(gateway.accepts(&alice));
    assert_wrong_password_is_refused(&gateway);
    gateway.reload("rejected", |config| {
        config.put("/routes/0/upstraem", json!("echo"));
    });
    gateway.reload("applied", |config| {
        config.file["routes"][0]
            .as_object_mut()
            .unwrap()
            .remove("upstraem");
    });
    redis.kill();
    redis.restart();
    let alice: SignedIn = eventually("sign-in works again", || {
        gateway.try_login("alice@example.com")
    });
    // Each worker has a link of its own, and connections are spread over the workers.
    for _ in 0..32 {
        eventually("every worker has its link again", || {
            gateway.accepts(&alice).then_some(())
        });
    }
    if counted {
        for stream in ["stream=\"stdout\"", "stream=\"stderr\""] {
            eventually(&format!("lines are counted: {stream}"), || {
                let dropped = gateway.metric("portcullis_log_lines_dropped_total", &[stream]);
                (dropped > 0.0).then_some(())
            });
        }
    }
    assert_drains(&mut gateway, &upstream);
}

fn assert_wrong_password_is_refused(gateway: &Gateway) {
    let body = json!({ "email": "alice@example.com", "password": "not the password" });
    let login = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
    login.assert_refused(401, "INVALID_CREDENTIALS");
}

fn assert_drains(gateway: &mut Gateway, upstream: &Upstream) {
    let public = gateway.public;
    let request = std::thread::spawn(move || Request::get("/public/slow?ms=500").send(public));
    eventually("it arrived", || upstream.has_seen("slow").then_some(()));
    let start = Instant::now();
    gateway.sigterm();
    assert_eq!(request.join().unwrap().status, 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    // Well before the grace period of 25 seconds.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
}
