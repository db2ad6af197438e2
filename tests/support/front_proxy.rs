//! nginx, HAProxy and Caddy in front of a gateway, with the files of `deploy/proxies`.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustls::{ClientConnection, StreamOwned};
use tempfile::TempDir;

use super::client::{Client, Request};
use super::gateway::{Gateway, signal};
use super::http2::Http2;
use super::ports;
use super::tls::{self, Certificate};
use super::wait::eventually;

/// The name that clients call, in place of `app.example.com`.
pub const NAME: &str = "localhost";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Haproxy,
    /// TLS ends at the gateway; HAProxy speaks the PROXY protocol.
    HaproxyPassthrough,
    Caddy,
}

impl Program {
    pub const ALL: [Program; 4] = [
        Program::Nginx,
        Program::Haproxy,
        Program::HaproxyPassthrough,
        Program::Caddy,
    ];

    /// Those that read requests.
    pub const HTTP: [Program; 3] = [Program::Nginx, Program::Haproxy, Program::Caddy];

    /// The file that an operator installs.
    fn file(self) -> String {
        let name = match self {
            Program::Nginx => "nginx.conf",
            Program::Haproxy => "haproxy.cfg",
            Program::HaproxyPassthrough => "haproxy-passthrough.cfg",
            Program::Caddy => "Caddyfile",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/proxies");
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    fn command(self, file: &Path) -> Command {
        let (program, arguments): (&str, &[&str]) = match self {
            Program::Nginx => ("nginx", &["-e", "stderr", "-c"]),
            Program::Haproxy | Program::HaproxyPassthrough => ("haproxy", &["-db", "-f"]),
            Program::Caddy => ("caddy", &["run", "--adapter", "caddyfile", "--config"]),
        };
        let mut command = command(program);
        command.args(arguments).arg(file);
        command
    }
}

/// Debian has some programs where the PATH of ordinary users does not look.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

/// A proxy that is ready to start: the file of its command is in `folder`.
pub struct Launch {
    pub command: Command,
    pub address: SocketAddr,
    pub certificate: Certificate,
    pub folder: TempDir,
}

/// A running proxy; it ends with this.
pub struct FrontProxy {
    pub address: SocketAddr,
    certificate: Certificate,
    folder: TempDir,
    child: Child,
    /// Whether it is a master with processes of its own.
    has_workers: bool,
}

impl FrontProxy {
    /// Starts one with the shipped file, which `edit` varies and in which addresses and certificates
    /// are replaced. `None`, with a message: the program is not installed.
    pub fn start(
        program: Program,
        gateway: &Gateway,
        certificate: Certificate,
        edit: impl FnOnce(&str) -> String,
    ) -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), ports::free());
        let contents = adapt(program, &edit(&program.file()), gateway, address, &folder);
        write_certificate(&certificate, folder.path());
        let file = folder.path().join("proxy.conf");
        std::fs::write(&file, contents).unwrap();
        let launch = Launch {
            command: program.command(&file),
            address,
            certificate,
            folder,
        };
        let mut proxy = FrontProxy::launch(launch)?;
        proxy.await_backend();
        assert!(gateway.metric("portcullis_requests_total", &["public"]) > 0.0);
        Some(proxy)
    }

    /// Starts one. `None`, with a message: the program is not installed.
    pub fn launch(mut launch: Launch) -> Option<Self> {
        let folder = launch.folder.path();
        let spawned = launch
            .command
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("stderr")).unwrap())
            .spawn();
        let Ok(child) = spawned else {
            let program = launch.command.get_program().to_string_lossy();
            eprintln!("skipped: {program} is not installed (scripts/setup tests installs it)");
            return None;
        };
        Some(FrontProxy {
            address: launch.address,
            certificate: launch.certificate,
            folder: launch.folder,
            child,
            has_workers: launch.command.get_program() == "nginx",
        })
    }

    /// Waits until it listens and a request without credentials reaches the backend.
    pub fn await_backend(&mut self) {
        eventually("the proxy forwards", || {
            if let Some(exit) = self.child.try_wait().unwrap() {
                panic!("the proxy ended with {exit}: {}", self.logs());
            }
            let config = tls::client(&self.certificate, &["http/1.1"]);
            let stream = tls::connect(self.address, NAME, &config).ok()?;
            let mut client = Client::from_stream(stream);
            client
                .try_send(Request::get("/public/started").to_bytes())
                .ok()?;
            (client.read_response_to("GET").ok()?.status == 200).then_some(())
        });
    }

    pub fn logs(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Connects with HTTP/1.1 over TLS.
    pub fn connect(&self) -> Client {
        Client::from_stream(self.connect_stream())
    }

    /// The same over a socket that is connected already.
    pub fn connect_over(&self, socket: TcpStream) -> Client {
        let config = tls::client(&self.certificate, &["http/1.1"]);
        Client::from_stream(tls::connect_over(socket, NAME, &config).unwrap())
    }

    /// The connection without a client on it.
    pub fn connect_stream(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let config = tls::client(&self.certificate, &["http/1.1"]);
        tls::connect(self.address, NAME, &config).unwrap()
    }

    /// Connects with HTTP/2 over TLS.
    pub fn connect_http2(&self) -> Http2 {
        let config = tls::client(&self.certificate, &["h2"]);
        Http2::connect_tls(self.address, NAME, &config)
    }
}

impl Drop for FrontProxy {
    fn drop(&mut self) {
        if self.has_workers {
            // They would stay.
            signal(self.child.id(), "TERM");
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Replaces the addresses and paths of a shipped file, and adds what a main file has around it.
fn adapt(
    program: Program,
    file: &str,
    gateway: &Gateway,
    address: SocketAddr,
    folder: &TempDir,
) -> String {
    let folder = folder.path().to_str().unwrap();
    let replaced = |from: &str, to: &str, text: &str| {
        assert!(text.contains(from), "{program:?} has {from}");
        text.replace(from, to)
    };
    let admin = gateway.admin.port().to_string();
    let public = gateway.public.to_string();
    match program {
        Program::Nginx => {
            let file = replaced("127.0.0.1:8080", &public, file);
            let file = replaced("app.example.com", NAME, &file);
            let file = replaced("listen 443", &format!("listen {address}"), &file);
            let file = replaced("/etc/nginx", folder, &file);
            nginx_main(&file, folder)
        }
        Program::Haproxy | Program::HaproxyPassthrough => {
            let plain = if program == Program::Haproxy {
                "127.0.0.1:8080"
            } else {
                "127.0.0.1:8443"
            };
            let file = replaced(plain, &public, file);
            let file = replaced("bind :443", &format!("bind {address}"), &file);
            let file = replaced("port 9090", &format!("port {admin}"), &file);
            file.replace("/etc/haproxy", folder)
        }
        Program::Caddy => {
            let file = replaced("127.0.0.1:8080", &public, file);
            let file = replaced("health_port 9090", &format!("health_port {admin}"), &file);
            caddy_site(&file, address, folder)
        }
    }
}

/// The main file of nginx around one of `conf.d`.
pub fn nginx_main(file: &str, folder: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder};"))
        .concat();
    format!(
        "daemon off; pid {folder}/pid; user root; events {{}} \
         http {{ access_log off; {temporary} {file} }}"
    )
}

/// The file of Caddy with the site at `address`, with its own certificate.
pub fn caddy_site(file: &str, address: SocketAddr, folder: &str) -> String {
    let name = "app.example.com {\n";
    assert!(file.contains(name), "{file}");
    let site = format!(
        "https://{NAME}:{} {{\n bind 127.0.0.1\n tls {folder}/site.pem {folder}/site.key\n",
        address.port()
    );
    let options = "{\n admin off\n auto_https off\n}\n";
    format!("{options}{}", file.replace(name, &site))
}

/// `site.pem` has the key too, because HAProxy reads both from one file.
pub fn write_certificate(certificate: &Certificate, folder: &Path) {
    let pem = format!("{}{}", certificate.cert, certificate.key);
    std::fs::write(folder.join("site.pem"), pem).unwrap();
    std::fs::write(folder.join("site.key"), &certificate.key).unwrap();
}
