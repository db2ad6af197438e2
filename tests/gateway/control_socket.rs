//! The control socket: usable by the gateway's user and root alone, and not blocked by a hostile peer.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::config::Config;
use crate::support::gateway::{Gateway, binary};
use crate::support::redis::Redis;
use crate::support::upgrade::{upgradable, upgrade};
use crate::support::upstream::Upstream;
use crate::support::wait::DEADLINE;

/// A user without rights.
const OTHER_USER: u32 = 65_534;

fn start() -> (Gateway, PathBuf, Redis) {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = upgradable(Config::new(upstream.address).store(&redis.url()));
    let path = gateway.config.file["admin"]["control_socket"].as_str();
    let path = PathBuf::from(path.unwrap());
    (gateway, path, redis)
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends bytes and returns the errors of the reply.
fn send(path: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(path);
    // It may be rejected before it is complete.
    let _ = stream.write_all(bytes);
    errors(stream)
}

fn errors(mut stream: UnixStream) -> String {
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    // A connection beyond those that are served at once has no reply.
    let reply: Value = serde_json::from_str(&reply).unwrap_or_default();
    reply["message"]["failed"]["errors"].to_string()
}

#[test]
fn hostile_peers_are_rejected_and_block_nothing() {
    let (gateway, path, _redis) = start();
    // Both hold a connection, and send nothing or no end.
    let silent = connect(&path);
    let mut unfinished = connect(&path);
    unfinished.write_all(b"{\"version\":1,").unwrap();
    for (bytes, expected) in [
        (&b"\n"[..], "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (b"\xff\xfe\x00\n", "malformed"),
        (&[b'['; 100_000], "malformed"),
        (b"{\"version\":1,\"message\":\"stop\"}\n", "malformed"),
        (b"{\"version\":7,\"message\":\"stop\"}\n", "version 7"),
    ] {
        let errors = send(&path, bytes);
        assert!(errors.contains(expected), "{errors}");
    }
    assert!(errors(silent).contains("in time"));
    assert!(errors(unfinished).contains("in time"));
    gateway.wait_for_log("a request to the control socket was rejected");
    // More than it serves at once, all silent: the others are closed, and later ones are served.
    let silent: Vec<_> = (0..50).map(|_| connect(&path)).collect();
    drop(silent);
    crate::support::wait::eventually("it serves again", || {
        send(&path, b"\n").contains("malformed").then_some(())
    });
    gateway.get("/public/a").assert_ok();
    upgrade(&gateway);
}

#[test]
fn flood_does_not_fill_the_log() {
    let (gateway, path, _redis) = start();
    for _ in 0..300 {
        send(&path, b"\n");
    }
    let logs = gateway.wait_for_log("a request to the control socket was rejected");
    let lines = logs.matches("a request to the control socket").count();
    assert!(lines < 100, "{lines}");
}

fn as_other_user(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).uid(OTHER_USER).gid(OTHER_USER);
    command.output().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn other_users_are_rejected() {
    if Command::new("id").arg("-u").output().unwrap().stdout != b"0\n" {
        eprintln!("only root can act as another user; skipped");
        return;
    }
    let (gateway, path, _redis) = start();
    let file = gateway.file().to_str().unwrap();
    set_mode(gateway.config.folder(), 0o755);
    let upgrade_as_other = || {
        let output = as_other_user(binary(), &["upgrade", "--config", file]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // The modes keep them out.
    let errors = upgrade_as_other();
    assert!(errors.contains("Permission denied"), "{errors}");
    // Without them, the command does not trust the socket of another user.
    set_mode(path.parent().unwrap(), 0o755);
    set_mode(&path, 0o666);
    let errors = upgrade_as_other();
    assert!(
        errors.contains("belongs to user 0, not to user 65534"),
        "{errors}"
    );
    // And the gateway checks who connects.
    let script = format!(
        "import contextlib, socket; s = socket.socket(socket.AF_UNIX); s.connect('{}')\n\
         with contextlib.suppress(OSError):\n \
         s.sendall(b'{{\"version\":1,\"message\":{{\"upgrade\":{{\"force\":true}}}}}}\\n')\n\
         print(s.recv(1000).decode())",
        path.display()
    );
    let output = as_other_user("python3", &["-c", &script]);
    let reply = String::from_utf8_lossy(&output.stdout);
    assert!(
        reply.contains("user 65534 may not control this gateway"),
        "{output:?}"
    );
    gateway.wait_for_log("user 65534 may not control this gateway");
    assert_eq!(
        gateway.logs().matches("a new process is started").count(),
        0
    );
}

#[test]
fn unsafe_paths_fail_the_start() {
    let upstream = Upstream::start();
    let listening = tempfile::tempdir().unwrap();
    let _other = UnixListener::bind(listening.path().join("socket")).unwrap();
    let open = tempfile::tempdir().unwrap();
    set_mode(open.path(), 0o755);
    let taken = tempfile::tempdir().unwrap();
    std::fs::write(taken.path().join("socket"), "precious").unwrap();
    for folder in [&listening, &taken] {
        set_mode(folder.path(), 0o700);
    }
    for (folder, expected) in [
        (open.path(), "has mode 0755"),
        (taken.path(), "a file that is not a socket"),
        (listening.path(), "another gateway listens there"),
        (Path::new("/nowhere/below"), "cannot create the directory"),
    ] {
        let path = folder.join("socket");
        let config = Config::new(upstream.address).set("/admin/control_socket", json!(path));
        let mut gateway = Gateway::spawn(config, &[]);
        assert_eq!(gateway.wait_exit().code(), Some(1), "{expected}");
        let logs = gateway.logs();
        assert!(
            logs.contains("admin.control_socket") && logs.contains(expected),
            "{logs}"
        );
    }
    assert_eq!(
        std::fs::read(taken.path().join("socket")).unwrap(),
        b"precious"
    );
}

#[test]
fn socket_of_a_killed_gateway_is_replaced() {
    let (mut gateway, path, _redis) = start();
    gateway.restart();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(send(&path, b"\n").contains("malformed"));
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn command_needs_the_setting() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let file = config.write();
    let arguments = ["upgrade", "--config", file.to_str().unwrap()];
    let (code, _, errors) = crate::support::gateway::run(&arguments);
    assert_eq!(code, 1);
    assert!(
        errors.contains("admin.control_socket is not configured"),
        "{errors}"
    );
}
