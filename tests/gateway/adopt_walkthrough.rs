//! The walkthrough of `docs/adopt.md`: the shipped backend, configuration and steps.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::client::{Request, connect_socket};
use crate::support::gateway::binary;
use crate::support::ports;
use crate::support::wait::eventually;

/// A program that ends with the test.
struct RunningProcess(Child);

impl Drop for RunningProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn_quietly(command: &mut Command) -> RunningProcess {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    RunningProcess(quiet.stderr(Stdio::null()).spawn().unwrap())
}

#[test]
fn adopt_walkthrough_works_as_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/adopt");
    let (backend, public, admin) = (ports::free(), ports::free(), ports::free());
    let port = backend.port().to_string();
    let _backend = spawn_quietly(
        Command::new("python3")
            .arg(folder.join("backend.py"))
            .arg(port),
    );
    eventually("the backend listens", || connect_socket(backend).ok());
    let away = tempfile::tempdir().unwrap();
    let _gateway = spawn_quietly(
        Command::new(binary())
            .args(["run", "--config"])
            .arg(folder.join("portcullis.yaml"))
            .current_dir(away.path())
            .env("LISTEN", public.to_string())
            .env("ADMIN", admin.to_string())
            .env("BACKEND", format!("http://{backend}")),
    );
    eventually("the gateway is ready", || {
        let response = Request::get("/ready").try_send(admin).ok()?;
        (response.status == 200).then_some(())
    });
    let tried = Command::new(folder.join("try.sh"))
        .env("GATEWAY", format!("http://{public}"))
        .output()
        .unwrap();
    let expected = "\
orders without a session: 401
a wrong password: 401
the correct password: 200
orders with the session: {\"user\": \"7\", \"orders\": [\"a teapot\", \"two cups\"]}
the list of sessions: 200
sign out: 204
orders afterwards: 401
";
    assert_eq!(String::from_utf8_lossy(&tried.stdout), expected);
    assert!(tried.status.success(), "{tried:?}");
}
