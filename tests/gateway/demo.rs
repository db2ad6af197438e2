//! The tour that `demo` prints works as described, line by line, in a POSIX shell.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::client::Request;
use crate::support::gateway::{binary, signal};
use crate::support::ports;
use crate::support::wait::{DEADLINE, eventually, within};

/// A running `portcullis demo`.
pub struct DemoProcess(pub Child);

impl DemoProcess {
    /// Starts it in a folder, on these addresses.
    pub fn start(folder: &Path, public: SocketAddr, admin: SocketAddr) -> DemoProcess {
        let authorizer = ports::free();
        // The soft limit that most systems set.
        let child = Command::new("sh")
            .args(["-c", "ulimit -n 1024 && exec \"$0\" \"$@\"", binary()])
            .args(["demo", "--bind", &public.to_string()])
            .args(["--admin-bind", &admin.to_string()])
            .args(["--forward-auth-bind", &authorizer.to_string()])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        DemoProcess(child.unwrap())
    }
}

impl Drop for DemoProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn printed_tour_works_line_by_line() {
    let (public, admin) = (ports::free(), ports::free());
    let folder = tempfile::tempdir().unwrap();
    let mut demo = DemoProcess::start(folder.path(), public, admin);
    let tour = read_tour(&mut demo.0);
    eventually("the demo is ready", || {
        (Request::get("/ready").try_send(admin).ok()?.status == 200).then_some(())
    });
    assert!(tour.len() >= 5, "{tour:?}");
    assert!(
        tour.iter().any(|line| line.contains(&public.to_string())),
        "its own address: {tour:?}"
    );
    let outputs = paste_into_shell(&tour, folder.path());
    let all = outputs.join("\n---\n");
    let position = |needle: &str| outputs.iter().position(|output| output.contains(needle));
    // Signed in, called, saw the limits, listed, signed out, and was refused after that.
    assert!(all.to_lowercase().contains("ratelimit"), "{all}");
    assert!(
        all.contains("X-User-Id") || all.contains("x-user-id"),
        "what the echo saw: {all}"
    );
    assert!(position("\"sessions\"").is_some(), "{all}");
    // Called with a key, which was revoked and refused.
    let called = position("/jobs/nightly").expect(&all);
    assert!(outputs[called].contains("per-key"), "{all}");
    assert!(outputs[called + 1].contains("204"), "{all}");
    assert!(outputs[called + 2].contains("TOKEN_REVOKED"), "{all}");
    // As a front proxy.
    assert!(all.contains("x-portcullis-code: OK"), "{all}");
    assert!(all.contains("x-portcullis-code: UNAUTHENTICATED"), "{all}");
    let refused = outputs
        .iter()
        .rposition(|output| output.contains("SESSION_REVOKED") || output.contains("TOKEN_REVOKED"));
    assert!(
        refused.is_some_and(|last| last > position("\"sessions\"").unwrap()),
        "{all}"
    );

    signal(demo.0.id(), "TERM");
    let exit = within(DEADLINE, "the demo ends", || demo.0.try_wait().unwrap());
    assert_eq!(exit.code(), Some(0));
    let mut log = String::new();
    let mut stderr = demo.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(!log.contains("WARN"), "{log}");
    assert_eq!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .filter(is_leftover)
            .count(),
        0
    );
}

/// Files that the demo, not the tour's own cookie jar, left in the working directory.
fn is_leftover(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry
        .as_ref()
        .is_ok_and(|e| e.file_name().to_string_lossy().ends_with(".db"))
}

/// The commands among what is printed, until a second passes in silence.
fn read_tour(child: &mut Child) -> Vec<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut lines = vec![
        receiver
            .recv_timeout(DEADLINE)
            .expect("the demo prints something"),
    ];
    while let Ok(line) = receiver.recv_timeout(Duration::from_secs(1)) {
        lines.push(line);
    }
    let commands = lines
        .iter()
        .map(|line| line.trim().trim_start_matches("$ "));
    let starts = |line: &&str| {
        line.starts_with("curl ") || line.contains("$(curl ") || line.starts_with("for ")
    };
    commands.filter(starts).map(str::to_owned).collect()
}

/// Feeds the lines to one shell, as a person would paste them, and returns what each printed.
fn paste_into_shell(lines: &[String], folder: &Path) -> Vec<String> {
    const MARK: &str = "===end of line===";
    let mut shell = Command::new("/bin/sh")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}\necho; echo '{MARK}'").unwrap();
    }
    drop(input);
    let mut output = String::new();
    shell
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    shell.wait().unwrap();
    let outputs: Vec<_> = output.split(MARK).map(str::to_owned).collect();
    assert_eq!(outputs.len(), lines.len() + 1, "{output}");
    outputs
}
