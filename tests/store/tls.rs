//! TLS to Redis, and users with restricted permissions.

use std::path::PathBuf;
use std::time::Duration;

use portcullis::settings::{Engine, RedisAddress, RedisTls, Sentinels, Topology};
use portcullis::store::{Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::captured_logs::CapturedLogs;
use crate::server::Server;
use crate::servers::{Process, free_port};
use crate::support::{address, log, metrics, node, open};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A folder with an authority, and certificates of it.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = CertificateParams::new([]).unwrap();
        let name = format!("authority {}", rand::random::<u64>());
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = wanted.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        let issuer = Issuer::new(wanted, key);
        Authority { folder, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name, and its key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let wanted = CertificateParams::new([name.to_owned()]).unwrap();
        let cert = wanted.signed_by(&key, &self.issuer).unwrap();
        let file = |kind| self.folder.path().join(format!("{name}.{kind}"));
        std::fs::write(file("pem"), cert.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("pem"), file("key"))
    }

    /// A server's options, name and value each.
    fn server_options(&self, name: &str, port: u16, clients: &str) -> Vec<(&'static str, String)> {
        let (cert, key) = self.issue(name);
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec![
            ("port", "0".to_owned()),
            ("tls-port", port.to_string()),
            ("tls-cert-file", path(cert)),
            ("tls-key-file", path(key)),
            ("tls-ca-cert-file", path(self.ca())),
            ("tls-auth-clients", clients.to_owned()),
        ]
    }

    fn serve(&self, name: &str, clients: &str) -> Server {
        self.serve_with(name, clients, &[])
    }

    fn serve_with(&self, name: &str, clients: &str, more: &[&str]) -> Server {
        let port = free_port();
        let options = self.server_options(name, port, clients).into_iter();
        let options: Vec<String> = options
            .flat_map(|(name, value)| [format!("--{name}"), value])
            .collect();
        let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
        arguments.extend(more);
        Server::start_on(port, &arguments)
    }

    /// Runs a command at a secured server.
    fn command(&self, port: u16, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["--tls", "-p", &port.to_string(), "--cacert"]);
        let output = command.arg(self.ca()).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}

fn open_tls(server: &Server, ca: PathBuf, client: Option<(PathBuf, PathBuf)>) -> Store {
    open_topology(Topology::Standalone(node(server.port)), ca, client)
}

fn open_topology(topology: Topology, ca: PathBuf, client: Option<(PathBuf, PathBuf)>) -> Store {
    let address = RedisAddress {
        topology,
        tls: Some(RedisTls {
            ca: Some(ca),
            client,
        }),
        ..address(0)
    };
    open(Engine::Redis(address), TIMEOUT, metrics()).connect()
}

async fn until_logged(log_lines: &CapturedLogs, reported: &str) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    while !log_lines.text().contains(reported) {
        assert!(
            std::time::Instant::now() < deadline,
            "{reported}: {}",
            log_lines.text()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn server_with_the_right_certificate_is_used() {
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", "no");
    let store = open_tls(&server, authority.ca(), None);
    assert!(store.wait_until_up(TIMEOUT).await);
    assert!(store.charge(&[log("l", 1)]).await.unwrap()[0].allowed);
}

#[tokio::test]
async fn wrong_certificate_is_refused_until_corrected() {
    let (log_lines, _guard) = CapturedLogs::start();
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.serve("127.0.0.1", "no");
    let store = open_tls(&server, other.ca(), None);
    until_logged(&log_lines, "TLS: invalid peer certificate: UnknownIssuer").await;
    assert_eq!(store.now().await, Err(StoreError::Unreachable));
    // The file is read again for the next connection.
    std::fs::copy(authority.ca(), other.ca()).unwrap();
    assert!(store.wait_until_up(TIMEOUT).await);
}

#[tokio::test]
async fn certificate_for_another_name_is_refused() {
    let (log_lines, _guard) = CapturedLogs::start();
    let authority = Authority::new();
    let server = authority.serve("redis.test", "no");
    let store = open_tls(&server, authority.ca(), None);
    until_logged(&log_lines, "TLS: invalid peer certificate").await;
    assert!(log_lines.text().contains("not valid for name"));
    assert!(!store.is_up());
}

#[tokio::test]
async fn client_certificate_is_sent_on_request() {
    let (log_lines, _guard) = CapturedLogs::start();
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", "yes");
    let without = open_tls(&server, authority.ca(), None);
    until_logged(&log_lines, "TLS: received fatal alert: CertificateRequired").await;
    assert!(!without.is_up());
    let with = open_tls(&server, authority.ca(), Some(authority.issue("gateway")));
    assert!(with.wait_until_up(TIMEOUT).await);
    assert!(with.now().await.is_ok());
}

#[tokio::test]
async fn sentinels_are_queried_over_tls() {
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", "no");
    let port = free_port();
    let options = authority
        .server_options("127.0.0.1", port, "no")
        .into_iter();
    let mut text: String = options
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect();
    text += "tls-replication yes\n";
    text += &format!("sentinel monitor m 127.0.0.1 {} 1\n", server.port);
    let file = authority.folder.path().join("sentinel.conf");
    std::fs::write(&file, text).unwrap();
    let _sentinel = Process::start(port, &[file.to_str().unwrap(), "--sentinel"]);
    let sentinels = Sentinels {
        nodes: vec![node(port)],
        master: "m".to_owned(),
        password: None,
    };
    let store = open_topology(Topology::Sentinel(sentinels), authority.ca(), None);
    assert!(store.wait_until_up(TIMEOUT).await);
    assert!(store.charge(&[log("l", 1)]).await.unwrap()[0].allowed);
}

#[tokio::test]
async fn cluster_is_reached_over_tls() {
    let authority = Authority::new();
    let file = format!("nodes-tls-{}.conf", rand::random::<u64>());
    let clustered = ["--cluster-enabled", "yes", "--cluster-config-file", &file];
    let mut more = clustered.to_vec();
    let folder = authority.folder.path().to_str().unwrap();
    more.extend(["--tls-cluster", "yes", "--dir", folder]);
    let server = authority.serve_with("127.0.0.1", "no", &more);
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    assert_eq!(authority.command(server.port, &slots), "OK");
    let store = open_topology(
        Topology::Cluster(vec![node(server.port)]),
        authority.ca(),
        None,
    );
    assert!(store.wait_until_up(TIMEOUT).await);
    assert!(store.charge(&[log("l", 1)]).await.unwrap()[0].allowed);
}

#[tokio::test]
async fn tls_and_plaintext_mismatch_fails() {
    let authority = Authority::new();
    let secured_server = authority.serve("127.0.0.1", "no");
    let plain = Server::start();
    let clear = address(secured_server.port);
    let clear = open(Engine::Redis(clear), TIMEOUT, metrics()).connect();
    let tls = open_tls(&plain, authority.ca(), None);
    assert!(!clear.wait_until_up(Duration::from_millis(300)).await);
    assert!(!tls.wait_until_up(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn missing_acl_command_is_reported() {
    let (log_lines, _guard) = CapturedLogs::start();
    let server = Server::start();
    let mut client = server.client().await;
    let mut making = redis::cmd("ACL");
    making.arg(&["SETUSER", "gateway", "on", ">pw", "~*", "&*", "+@all"]);
    making.arg(&["-evalsha", "-rpush"]);
    making.exec_async(&mut client).await.unwrap();
    let address = RedisAddress {
        username: Some("gateway".to_owned()),
        password: Some("pw".into()),
        ..address(server.port)
    };
    let store = open(Engine::Redis(address), TIMEOUT, metrics()).connect();
    assert!(store.wait_until_up(TIMEOUT).await);
    assert_eq!(store.charge(&[log("l", 1)]).await, Err(StoreError::Refused));
    until_logged(&log_lines, "code=\"NOPERM evalsha\"").await;
}
