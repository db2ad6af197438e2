//! The real binary, started for one test and stopped with it.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::client::{Request, Response};
use super::config::{ADMIN_TOKEN, Config};
use super::wait::{DEADLINE, eventually, within};

pub const PASSWORD: &str = "correct horse battery";

/// A running `portcullis run`.
pub struct Gateway {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub config: Config,
    file: PathBuf,
    /// Whether the processes of its group end with it.
    leads_group: bool,
}

impl Gateway {
    /// Starts it and waits until it says that it is ready.
    pub fn start(config: Config) -> Gateway {
        let mut gateway = Gateway::spawn(config, &[]);
        gateway.await_status("/ready", 200);
        gateway
    }

    /// Starts it with further arguments and waits until it is alive.
    pub fn start_with_arguments(config: Config, arguments: &[&str]) -> Gateway {
        let mut gateway = Gateway::spawn(config, arguments);
        gateway.await_status("/health", 200);
        gateway
    }

    /// Starts it and waits for nothing.
    pub fn spawn(config: Config, arguments: &[&str]) -> Gateway {
        let file = config.write();
        let child = serve_command(&config, &file, arguments).spawn().unwrap();
        Gateway::from_child(child, config, file)
    }

    /// Starts it with a file that is there already, and waits for nothing.
    pub fn spawn_from(config: Config, file: PathBuf) -> Gateway {
        let child = serve_command(&config, &file, &[]).spawn().unwrap();
        Gateway::from_child(child, config, file)
    }

    /// Starts it from a shell, after these commands, and waits until it is ready.
    pub fn start_after(config: Config, commands: &str) -> Gateway {
        let file = config.write();
        let served = serve_command(&config, &file, &[]);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{commands} && exec \"$0\" \"$@\"")])
            .arg(served.get_program())
            .args(served.get_args())
            .current_dir(config.folder())
            .stdin(Stdio::null())
            .stdout(output_file(&config, "stdout"))
            .stderr(output_file(&config, "stderr"));
        let child = shell.spawn().unwrap();
        let mut gateway = Gateway::from_child(child, config, file);
        gateway.await_status("/ready", 200);
        gateway
    }

    /// Starts it with one worker, so that one pool serves all requests.
    pub fn start_on_one_worker(config: Config) -> Gateway {
        Gateway::start_after(config, "taskset -cp 0 $$ >/dev/null")
    }

    /// Starts it with these standard streams and waits until it is ready.
    pub fn start_with_output(config: Config, stdout: Stdio, stderr: Stdio) -> Gateway {
        let file = config.write();
        let mut command = serve_command(&config, &file, &[]);
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let mut gateway = Gateway::from_child(child, config, file);
        gateway.await_status("/ready", 200);
        gateway
    }

    fn from_child(child: Child, config: Config, file: PathBuf) -> Gateway {
        Gateway {
            child,
            public: config.listener(0),
            admin: config.admin(),
            config,
            file,
            leads_group: false,
        }
    }

    /// Starts it from this path, in a group with the processes that it starts, and waits until it is
    /// ready.
    pub fn start_group(config: Config, binary: &Path) -> Gateway {
        let file = config.write();
        let command = serve_command(&config, &file, &[]);
        let mut own = Command::new(binary);
        own.args(command.get_args())
            .envs(config.environment.iter().cloned())
            .current_dir(config.folder())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output_file(&config, "stdout"))
            .stderr(output_file(&config, "stderr"));
        let mut gateway = Gateway::from_child(own.spawn().unwrap(), config, file);
        gateway.leads_group = true;
        gateway.await_status("/ready", 200);
        gateway
    }

    /// Ends it by SIGTERM and starts it again where it was.
    pub fn restart_gracefully(&mut self) {
        self.sigterm();
        assert_eq!(self.wait_exit().code(), Some(0));
        self.child = serve_command(&self.config, &self.file, &[])
            .spawn()
            .unwrap();
        self.await_status("/ready", 200);
    }

    /// Ends it without a farewell and starts it again where it was.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        self.wait_exit();
        self.child = serve_command(&self.config, &self.file, &[])
            .spawn()
            .unwrap();
        self.await_status("/ready", 200);
    }

    fn await_status(&mut self, path: &str, status: u16) {
        eventually(&format!("{path} answers {status}"), || {
            if let Some(exit) = self.child.try_wait().unwrap() {
                panic!("the gateway ended with {exit}:\n{}", self.logs());
            }
            let response = Request::get(path).try_send(self.admin).ok()?;
            (response.status == status).then_some(())
        });
    }

    /// Asks on the first public listener.
    pub fn request(&self, request: &Request) -> Response {
        request.send(self.public)
    }

    pub fn get(&self, target: &str) -> Response {
        self.request(&Request::get(target))
    }

    /// Asks the admin listener with its token.
    pub fn admin(&self, request: Request) -> Response {
        request.bearer(ADMIN_TOKEN).send(self.admin)
    }

    /// Registers a user, who is then signed in.
    pub fn register(&self, email: &str) -> SignedIn {
        let body = json!({ "email": email, "password": PASSWORD, "session_token": true });
        let response = self.request(&Request::post("/api/v1/auth/register").json(&body));
        assert_eq!(response.status, 201, "{}", response.text());
        SignedIn::from_response(&response)
    }

    /// Signs a registered user in once more.
    pub fn login(&self, email: &str) -> SignedIn {
        let body = json!({ "email": email, "password": PASSWORD, "session_token": true });
        let response = self.request(&Request::post("/api/v1/auth/login").json(&body));
        assert_eq!(response.status, 200, "{}", response.text());
        SignedIn::from_response(&response)
    }

    /// Signs a registered user in, unless the gateway refuses.
    pub fn try_login(&self, email: &str) -> Option<SignedIn> {
        let body = json!({ "email": email, "password": PASSWORD, "session_token": true });
        let response = self.request(&Request::post("/api/v1/auth/login").json(&body));
        assert_ne!(response.status, 500, "{}", response.text());
        (response.status == 200).then(|| SignedIn::from_response(&response))
    }

    /// Whether the private route takes that session's cookie.
    pub fn accepts(&self, user: &SignedIn) -> bool {
        self.request(&Request::get("/private/a").cookie(&user.cookie))
            .status
            == 200
    }

    /// The sum of the series of that name whose labels contain every one given.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = Request::get("/metrics").send(self.admin).text();
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or("x");
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        });
        series
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Everything it wrote so far, to standard output and standard error.
    pub fn logs(&self) -> String {
        let read = |name| std::fs::read(self.config.folder().join(name)).unwrap_or_default();
        let (out, err) = (read("stdout"), read("stderr"));
        format!(
            "{}{}",
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&err)
        )
    }

    /// Waits until the logs contain a text: lines are written by threads of their own. Returns the logs.
    pub fn wait_for_log(&self, text: &str) -> String {
        eventually(&format!("the logs contain {text}"), || {
            let logs = self.logs();
            logs.contains(text).then_some(logs)
        })
    }

    /// The JSON lines among the logs.
    pub fn events(&self) -> Vec<Value> {
        self.logs()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Replaces the file in place, without notifying the gateway.
    pub fn rewrite(&self, contents: &str) {
        std::fs::write(&self.file, contents).unwrap();
    }

    /// Varies the configuration, writes it and waits until its outcome was counted.
    pub fn reload(&mut self, outcome: &str, vary: impl FnOnce(&mut Config)) {
        let label = format!("outcome=\"{outcome}\"");
        let before = self.metric("portcullis_config_reloads_total", &[&label]);
        vary(&mut self.config);
        self.config.write();
        self.sighup();
        eventually(&format!("a reload that is {outcome}"), || {
            let now = self.metric("portcullis_config_reloads_total", &[&label]);
            (now > before).then_some(())
        });
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn sighup(&self) {
        signal(self.pid(), "HUP");
    }

    pub fn sigterm(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits until the process has ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        within(DEADLINE, "the gateway ends", || {
            self.child.try_wait().unwrap()
        })
    }

    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// How the process has ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

/// The command, with files beside the configuration as standard streams.
fn serve_command(config: &Config, file: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["run", "--config", file.to_str().unwrap()])
        .args(["--log-format", "json"])
        .args(arguments)
        .envs(config.environment.iter().cloned())
        .current_dir(config.folder())
        .stdin(Stdio::null())
        .stdout(output_file(config, "stdout"))
        .stderr(output_file(config, "stderr"));
    command
}

/// A file beside the configuration, to append to.
fn output_file(config: &Config, name: &str) -> File {
    let path = config.folder().join(name);
    let mut options = File::options();
    options.create(true).append(true).open(path).unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        if self.leads_group {
            // Before the group's leader is gone for good, so that the number is still the group's.
            let group = format!("-{}", self.pid());
            let mut kill = Command::new("kill");
            let kill = kill.args(["-KILL", "--", &group]);
            let _ = kill.stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.logs());
        }
    }
}

/// The response to a sign-in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub user: String,
    pub session: String,
    /// `name=value`, for a `Cookie` header.
    pub cookie: String,
    pub session_token: String,
    pub access_token: String,
    pub refresh_token: String,
    pub set_cookie: String,
}

impl SignedIn {
    fn from_response(response: &Response) -> SignedIn {
        let data = response.data();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let set_cookie = response.header("set-cookie").unwrap_or_default().to_owned();
        SignedIn {
            user: text(&data["user"]["id"]),
            session: text(&data["session"]["id"]),
            cookie: set_cookie.split(';').next().unwrap_or_default().to_owned(),
            session_token: text(&data["session_token"]),
            access_token: text(&data["access_token"]),
            refresh_token: text(&data["refresh_token"]),
            set_cookie,
        }
    }
}

/// Runs the binary to its end and returns status, standard output and standard error.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    run_with_input(arguments, "")
}

/// The same with something on its standard input.
pub fn run_with_input(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(binary())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// What is tested: the build of these tests, or the one that `PORTCULLIS_BINARY` names.
pub fn binary() -> &'static str {
    static BINARY: LazyLock<String> = LazyLock::new(|| {
        let named = std::env::var("PORTCULLIS_BINARY");
        named.unwrap_or_else(|_| env!("CARGO_BIN_EXE_portcullis").to_owned())
    });
    &BINARY
}

/// Sends a signal by the shell's own command: the standard library has none for it.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}
