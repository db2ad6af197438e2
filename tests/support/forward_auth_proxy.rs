//! Proxies that ask a gateway about each request, with the files of `deploy/proxies/forward-auth`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::front_proxy::{self, FrontProxy, Launch, NAME};
use super::{ports, tls};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthProgram {
    Nginx,
    Haproxy,
    /// The one of Debian.
    Caddy,
    /// That of PyPI.
    NewCaddy,
    Traefik,
    EnvoyHttp,
    EnvoyGrpc,
}

/// Files beside those of [`AuthProgram::file`] that they include.
const INCLUDED: [&str; 3] = [
    "portcullis.lua",
    "portcullis-server.conf",
    "portcullis-location.conf",
];

/// Where the parts of a deployment listen, in place of the ports of the files.
pub struct Addresses {
    pub gateway: SocketAddr,
    pub authorizer: SocketAddr,
    pub backend: SocketAddr,
}

impl AuthProgram {
    pub const ALL: [AuthProgram; 7] = [
        AuthProgram::Nginx,
        AuthProgram::Haproxy,
        AuthProgram::Caddy,
        AuthProgram::NewCaddy,
        AuthProgram::Traefik,
        AuthProgram::EnvoyHttp,
        AuthProgram::EnvoyGrpc,
    ];

    /// The dialect of its calls, in metrics and logs.
    pub fn dialect(self) -> &'static str {
        match self {
            AuthProgram::Nginx => "auth-request",
            AuthProgram::EnvoyHttp => "ext-authz",
            AuthProgram::EnvoyGrpc => "ext-authz-grpc",
            _ => "forward-auth",
        }
    }

    /// The file that an operator installs.
    fn file(self) -> &'static str {
        match self {
            AuthProgram::Nginx => "nginx.conf",
            AuthProgram::Haproxy => "haproxy.cfg",
            AuthProgram::Caddy | AuthProgram::NewCaddy => "Caddyfile",
            AuthProgram::Traefik => "traefik.yaml",
            AuthProgram::EnvoyHttp => "envoy-http.yaml",
            AuthProgram::EnvoyGrpc => "envoy-grpc.yaml",
        }
    }

    /// Where the file has its certificates.
    fn folder(self) -> Option<&'static str> {
        match self {
            AuthProgram::Nginx => Some("/etc/nginx"),
            AuthProgram::Haproxy => Some("/etc/haproxy"),
            AuthProgram::Caddy | AuthProgram::NewCaddy => None,
            AuthProgram::Traefik => Some("/etc/traefik"),
            AuthProgram::EnvoyHttp | AuthProgram::EnvoyGrpc => Some("/etc/envoy"),
        }
    }

    fn command(self, file: &Path) -> Command {
        let caddy = ["run", "--adapter", "caddyfile", "--config"];
        let envoy = ["--disable-hot-restart", "--concurrency", "1", "-c"];
        let (mut command, arguments): (Command, &[&str]) = match self {
            AuthProgram::Nginx => (front_proxy::command("nginx"), &["-e", "stderr", "-c"]),
            AuthProgram::Haproxy => (front_proxy::command("haproxy"), &["-db", "-f"]),
            AuthProgram::Caddy => (front_proxy::command("caddy"), &caddy),
            AuthProgram::NewCaddy => (Command::new(installed("caddy")), &caddy),
            AuthProgram::Traefik => (Command::new(installed("traefik")), &["--configFile"]),
            AuthProgram::EnvoyHttp | AuthProgram::EnvoyGrpc => {
                (Command::new(installed("envoy")), &envoy)
            }
        };
        command.args(arguments).arg(file);
        command
    }

    /// Starts it. `None`, with a message: the program is not installed.
    pub fn start(self, parts: &Addresses) -> Option<FrontProxy> {
        let (folder, address) = (tempfile::tempdir().unwrap(), ports::free());
        let certificate = tls::certificate(NAME);
        front_proxy::write_certificate(&certificate, folder.path());
        let shipped = shipped();
        for name in INCLUDED {
            let file = std::fs::read_to_string(shipped.join(name)).unwrap();
            std::fs::write(folder.path().join(name), with_key_header(&file)).unwrap();
        }
        let file = std::fs::read_to_string(shipped.join(self.file())).unwrap();
        let adapted = self.adapt(&file, parts, address, folder.path());
        let file = folder.path().join("proxy.yaml");
        std::fs::write(&file, adapted).unwrap();
        let launch = Launch {
            command: self.command(&file),
            address,
            certificate,
            folder,
        };
        let mut proxy = FrontProxy::launch(launch)?;
        proxy.await_backend();
        Some(proxy)
    }

    /// Replaces the addresses and paths of the shipped file, uncomments the line for `api_keys.header`, and
    /// adds what a main file has around it.
    fn adapt(self, file: &str, parts: &Addresses, address: SocketAddr, folder: &Path) -> String {
        let folder = folder.to_str().unwrap();
        let mut file = with_key_header(file);
        for (shipped, part) in [
            (9191, parts.authorizer),
            (8080, parts.gateway),
            (3000, parts.backend),
        ] {
            let port = part.port();
            let forms = [
                (format!("127.0.0.1:{shipped}"), format!("127.0.0.1:{port}")),
                (
                    format!("port_value: {shipped} "),
                    format!("port_value: {port} "),
                ),
            ];
            assert!(
                forms.iter().any(|(from, _)| file.contains(from)),
                "{self:?}"
            );
            for (from, to) in forms {
                file = file.replace(&from, &to);
            }
        }
        if let Some(shipped) = self.folder() {
            file = replaced(&file, shipped, folder);
        }
        match self {
            AuthProgram::Nginx => {
                let file = replaced(&file, "app.example.com", NAME);
                let file = replaced(&file, "listen 443", &format!("listen {address}"));
                front_proxy::nginx_main(&file, folder)
            }
            AuthProgram::Haproxy => replaced(&file, "bind :443", &format!("bind {address}")),
            AuthProgram::Caddy | AuthProgram::NewCaddy => {
                front_proxy::caddy_site(&file, address, folder)
            }
            AuthProgram::Traefik => {
                let file = replaced(&file, "app.example.com", NAME);
                std::fs::write(format!("{folder}/dynamic.yaml"), file).unwrap();
                traefik_main(address, folder)
            }
            AuthProgram::EnvoyHttp | AuthProgram::EnvoyGrpc => {
                let domains = format!("[{NAME}, \"{NAME}:*\"]");
                let file = replaced(&file, "[app.example.com]", &domains);
                let port = format!("127.0.0.1, port_value: {} ", address.port());
                replaced(&file, "0.0.0.0, port_value: 443 ", &port)
            }
        }
    }
}

/// Uncomments the line for `api_keys.header`.
fn with_key_header(file: &str) -> String {
    let uncomment = |line: &str| match line.strip_suffix(" # api_keys.header") {
        Some(marked) => marked.replacen("# ", "", 1) + "\n",
        None => format!("{line}\n"),
    };
    file.lines().map(uncomment).collect()
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/proxies/forward-auth")
}

/// A program that `scripts/setup tests` installs from PyPI.
fn installed(program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/proxies/bin");
    folder.join(program)
}

/// The static configuration.
fn traefik_main(address: SocketAddr, folder: &str) -> String {
    serde_json::json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "entryPoints": { "websecure": { "address": address.to_string() } },
        "providers": { "file": { "filename": format!("{folder}/dynamic.yaml"), "watch": false } },
    })
    .to_string()
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the file has {from}");
    text.replace(from, to)
}
