//! The protocol of systemd: notifications about readiness, reloads, the end and the watchdog, and
//! sockets that the service manager has opened.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, binary, signal};
use crate::support::redis::Redis;
use crate::support::upgrade::{upgradable, upgrade};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually, within};

/// Receives what a service manager would.
struct Manager(UnixDatagram);

impl Manager {
    fn start(config: &mut Config) -> Manager {
        let path = config.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        config.environment.push(("NOTIFY_SOCKET", path));
        Manager(socket)
    }

    /// The next notification, as its variables.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a notification");
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn readiness_reloads_and_the_end_are_reported() {
    let upstream = Upstream::start();
    let mut config =
        Config::new(upstream.address).set("/shutdown", json!({ "delay": "500ms", "grace": "2s" }));
    let manager = Manager::start(&mut config);
    let mut gateway = Gateway::spawn(config, &[]);
    assert_eq!(manager.next(), ["READY=1", "STATUS=serving"]);
    // From then on it serves.
    gateway.get("/public/a").assert_ok();

    gateway.sighup();
    assert_reloading(&manager.next());
    assert_eq!(manager.next(), ["READY=1", "STATUS=serving"]);

    gateway.rewrite("{ not yaml: [");
    assert_reloading(&manager.next());
    let rejected = manager.next();
    assert_eq!(rejected[0], "READY=1");
    assert!(rejected[1].contains("reload was rejected"), "{rejected:?}");

    gateway.sigterm();
    let stopping = manager.next();
    // 32.5 s: what the shutdown is configured to take, and the end itself.
    assert_eq!(
        stopping,
        [
            "STOPPING=1",
            "EXTEND_TIMEOUT_USEC=32500000",
            "STATUS=draining"
        ]
    );
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

/// `Type=notify-reload` needs the time of the reload, by the monotonic clock.
fn assert_reloading(notification: &[String]) {
    assert_eq!(notification[0], "RELOADING=1", "{notification:?}");
    let time = notification[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    let time: f64 = time.parse().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!(time > 0.0 && time / 1e6 < uptime + 1.0, "{time} {uptime}");
}

#[test]
fn watchdog_is_notified_in_time() {
    let upstream = Upstream::start();
    let mut config = Config::new(upstream.address);
    let manager = Manager::start(&mut config);
    let limit = PathBuf::from("200000");
    config.environment.push(("WATCHDOG_USEC", limit));
    let gateway = Gateway::spawn(config, &[]);
    assert_eq!(manager.next()[0], "READY=1");
    for _ in 0..5 {
        assert_eq!(manager.next(), ["WATCHDOG=1"]);
    }
    drop(gateway);

    // It is meant for another process.
    let mut config = Config::new(upstream.address);
    let manager = Manager::start(&mut config);
    let limit = PathBuf::from("200000");
    config.environment.push(("WATCHDOG_USEC", limit));
    config
        .environment
        .push(("WATCHDOG_PID", PathBuf::from("1")));
    let gateway = Gateway::spawn(config, &[]);
    assert_eq!(manager.next()[0], "READY=1");
    gateway.sigterm();
    assert_eq!(manager.next()[0], "STOPPING=1");
}

#[test]
fn upgrade_makes_the_new_process_the_main_one() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let mut config = Config::new(upstream.address).store(&redis.url());
    let manager = Manager::start(&mut config);
    let (limit, process) = ("1000000".into(), "0".into());
    config.environment.push(("WATCHDOG_USEC", limit));
    // Not the process that starts; the new one is supervised whatever this says.
    config.environment.push(("WATCHDOG_PID", process));
    let mut gateway = upgradable(config);
    assert_eq!(manager.next()[0], "READY=1");
    let process = upgrade(&gateway);
    // From the old process, and then from the new one.
    assert_eq!(manager.next(), [format!("MAINPID={process}")]);
    assert_eq!(manager.next(), ["READY=1", "STATUS=serving"]);
    assert_eq!(manager.next(), ["WATCHDOG=1"]);
    // The old process ends without a notification.
    assert_eq!(gateway.wait_exit().code(), Some(0));
    signal(process, "TERM");
    let stopping = std::iter::repeat_with(|| manager.next());
    let mut stopping = stopping.skip_while(|states| states[0] == "WATCHDOG=1");
    assert_eq!(stopping.next().unwrap()[0], "STOPPING=1");
}

/// Starts the gateway with sockets as a service manager does. The first two are passed on as standard
/// streams, because these are inherited.
fn activate(config: &Config, names: &str, first: OwnedFd, second: Option<OwnedFd>) -> Child {
    let (count, second) = match second {
        Some(second) => (2, Stdio::from(second)),
        None => (1, Stdio::null()),
    };
    let script = format!(
        "exec 3<&0 4<&1 </dev/null >>stdout; export LISTEN_FDS={count} LISTEN_PID=$$ \
         LISTEN_FDNAMES='{names}'; exec \"$0\" run --log-format json --config \"$1\""
    );
    Command::new("sh")
        .args(["-c", &script])
        .arg(binary())
        .arg(config.write())
        .current_dir(config.folder())
        .process_group(0)
        .stdin(Stdio::from(first))
        .stdout(second)
        .stderr(std::fs::File::create(config.folder().join("stderr")).unwrap())
        .spawn()
        .unwrap()
}

fn errors(config: &Config) -> String {
    std::fs::read_to_string(config.folder().join("stderr")).unwrap()
}

struct Killed(Child);

impl Killed {
    /// Sends a signal to the process and those that it has started.
    fn signal_group(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), "--", &format!("-{}", self.0.id())]);
        let _ = kill.stderr(Stdio::null()).status();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.signal_group("KILL");
        let _ = self.0.wait();
    }
}

#[test]
fn sockets_of_the_service_manager_keep_connections_over_a_restart() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let public = TcpListener::bind(config.listener(0)).unwrap();
    // Another address than the file's: its name decides.
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin_address = admin.local_addr().unwrap();
    let start = || {
        let (public, admin) = (public.try_clone().unwrap(), admin.try_clone().unwrap());
        Killed(activate(
            &config,
            "web:admin",
            public.into(),
            Some(admin.into()),
        ))
    };
    // Before there is a process.
    let mut early = Client::connect(config.listener(0));
    early.send(Request::get("/public/early").to_bytes());
    for _ in 0..2 {
        let mut gateway = start();
        assert_eq!(early.read_response().status, 200);
        eventually("it is ready", || {
            (Request::get("/ready").send(admin_address).status == 200).then_some(())
        });
        signal(gateway.0.id(), "TERM");
        let exit = within(DEADLINE, "it ends", || gateway.0.try_wait().unwrap());
        assert_eq!(exit.code(), Some(0), "{}", errors(&config));
        // It waits for the next process.
        early = Client::connect(config.listener(0));
        early.send(Request::get("/public/later").to_bytes());
    }
}

#[test]
fn sockets_of_the_service_manager_outlive_upgrades() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = Config::new(upstream.address).store(&redis.url());
    let public = TcpListener::bind(config.listener(0)).unwrap();
    let start = || {
        let public = public.try_clone().unwrap().into();
        Killed(activate(&config, "web", public, None))
    };
    let served = |what: &str| {
        eventually(what, || {
            (Request::get("/ready").try_send(config.admin()).ok()?.status == 200).then_some(())
        });
        Request::get("/public/a")
            .send(config.listener(0))
            .assert_ok();
    };
    let mut gateway = start();
    served("it is ready");
    signal(gateway.0.id(), "USR2");
    let exit = within(DEADLINE, "it is replaced", || gateway.0.try_wait().unwrap());
    assert_eq!(exit.code(), Some(0), "{}", errors(&config));
    served("the new process is ready");
    gateway.signal_group("TERM");
    eventually("the new process drains, as the first did", || {
        let logs = std::fs::read_to_string(config.folder().join("stdout")).unwrap();
        let logs = logs + &errors(&config);
        (logs.matches("\"draining\"").count() == 2).then_some(())
    });
    // The socket is still open, and accepts connections.
    let mut early = Client::connect(config.listener(0));
    early.send(Request::get("/public/early").to_bytes());
    let _gateway = start();
    assert_eq!(early.read_response().status, 200);
}

#[test]
fn sockets_that_are_for_no_listener_fail_the_start() {
    let upstream = Upstream::start();
    let other = || TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config::new(upstream.address);
    let unix = UnixListener::bind(config.folder().join("unix")).unwrap();
    let fitting = TcpListener::bind(config.listener(0)).unwrap();
    let twice = fitting.try_clone().unwrap();
    for (names, first, second, expected) in [
        ("web", other().into(), None, "is for no listener"),
        ("listeners[7]", other().into(), None, "is for no listener"),
        ("web", unix.into(), None, "is for no listener"),
        (
            "a:b",
            fitting.into(),
            Some(OwnedFd::from(twice)),
            "two sockets for the listener",
        ),
    ] {
        let first: OwnedFd = first;
        let mut gateway = Killed(activate(&config, names, first, second));
        let exit = eventually("it ends", || gateway.0.try_wait().unwrap());
        assert_eq!(exit.code(), Some(1), "{names}");
        assert!(errors(&config).contains(expected), "{}", errors(&config));
    }
}
