//! The README's shell commands work as described, unchanged except for the addresses.

use std::path::Path;
use std::process::{Command, Stdio};

use super::demo::DemoProcess;
use crate::support::client::Request;
use crate::support::gateway::{binary, signal};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually, within};

/// The first block of a language after a heading.
fn block(heading: &str, language: &str) -> String {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// Runs lines in a POSIX shell that finds the binary; every one of them has to succeed.
fn shell(lines: &str, folder: &Path) -> String {
    let beside = Path::new(binary()).parent().unwrap().display();
    let output = Command::new("/bin/sh")
        .args(["-eu", "-c", lines])
        .env(
            "PATH",
            format!("{beside}:{}", std::env::var("PATH").unwrap()),
        )
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{printed}");
    printed
}

#[test]
fn readme_tour_works() {
    let (public, admin) = (ports::free(), ports::free());
    let folder = tempfile::tempdir().unwrap();
    let _demo = DemoProcess::start(folder.path(), public, admin);
    eventually("the demo is ready", || {
        (Request::get("/ready").try_send(admin).ok()?.status == 200).then_some(())
    });
    let tour = block("A tour", "sh");
    assert!(tour.contains("127.0.0.1:8080"), "{tour}");
    let output = shell(
        &tour.replace("127.0.0.1:8080", &public.to_string()),
        folder.path(),
    );
    let at = |part: &str| {
        output
            .find(part)
            .unwrap_or_else(|| panic!("no {part} in {output}"))
    };
    assert!(at("access_token") < at("\"next_cursor\""));
    assert!(at("\"next_cursor\"") < at("/jobs/nightly"));
    assert!(at("/jobs/nightly") < at("TOKEN_REVOKED"));
    assert!(at("TOKEN_REVOKED") < at("SESSION_REVOKED"));
}

#[test]
fn readme_backend_example_works() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let (public, admin) = (ports::free(), ports::free());
    let folder = tempfile::tempdir().unwrap();
    let file = block("In front of your backend", "yaml")
        .replace("127.0.0.1:8080", &public.to_string())
        .replace("127.0.0.1:6379", &redis.address.to_string())
        .replace("127.0.0.1:3000", &upstream.address.to_string());
    let file = format!("{file}admin: {{ bind: \"{admin}\" }}\n");
    std::fs::write(folder.path().join("portcullis.yaml"), file).unwrap();

    let commands = block("In front of your backend", "sh");
    let (before, run) = commands.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(run, "portcullis run --config portcullis.yaml");
    let output = shell(
        &format!("{before}\necho \"secret: $JWT_SECRET\"\n"),
        folder.path(),
    );
    let after = |label: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("no {label} in {output}"))
            .to_owned()
    };
    let mut gateway = Command::new(binary())
        .args(run.split(' ').skip(1))
        .env("JWT_SECRET", after("secret: "))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the gateway is ready", || {
        (Request::get("/ready").try_send(admin).ok()?.status == 200).then_some(())
    });
    let login = serde_json::json!({
        "email": "you@example.com", "password": after("password: "),
    });
    let response = Request::post("/api/v1/auth/login")
        .json(&login)
        .send(public);
    let token = response.data()["access_token"].as_str().unwrap().to_owned();
    let seen = Request::get("/orders/7").bearer(&token).send(public).echo();
    assert_eq!(seen.header("x-user-roles").as_deref(), Some("admin"));
    signal(gateway.id(), "TERM");
    let exit = within(DEADLINE, "it ends", || gateway.try_wait().unwrap());
    assert_eq!(exit.code(), Some(0));
}

/// A file that is renamed would be left out without a word.
#[test]
fn attack_script_names_existing_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("scripts/attack")).unwrap();
    let words = script.split_whitespace();
    let named: Vec<&str> = words.filter_map(|word| word.strip_suffix("::")).collect();
    assert!(!named.is_empty());
    for name in named {
        let file = root.join(format!("tests/gateway/{name}.rs"));
        assert!(file.exists(), "{}", file.display());
    }
}
