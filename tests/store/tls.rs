//! TLS towards Redis, and users who may not do everything.

use std::path::PathBuf;
use std::time::Duration;

use portcullis::settings::{Engine, RedisAddress, RedisTls, Sentinels, Topology};
use portcullis::store::{Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::captured::Captured;
use crate::server::Server;
use crate::servers::{Process, free_port};
use crate::support::{address, log, metrics, node, open};

const PATIENCE: Duration = Duration::from_secs(5);

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
    fn options(&self, name: &str, port: u16, clients: &str) -> Vec<(&'static str, String)> {
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
        let options = self.options(name, port, clients).into_iter();
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

fn secured(server: &Server, ca: PathBuf, client: Option<(PathBuf, PathBuf)>) -> Store {
    reached(Topology::Standalone(node(server.port)), ca, client)
}

fn reached(topology: Topology, ca: PathBuf, client: Option<(PathBuf, PathBuf)>) -> Store {
    let address = RedisAddress {
        topology,
        tls: Some(RedisTls {
            ca: Some(ca),
            client,
        }),
        ..address(0)
    };
    open(Engine::Redis(address), PATIENCE, metrics()).link()
}

async fn until_logged(log_lines: &Captured, told: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !log_lines.text().contains(told) {
        assert!(
            std::time::Instant::now() < deadline,
            "{told}: {}",
            log_lines.text()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_with_the_right_certificate_is_used() {
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", "no");
    let store = secured(&server, authority.ca(), None);
    assert!(store.wait_until_up(PATIENCE).await);
    assert!(store.charge(&[log("l", 1)]).await.unwrap()[0].allowed);
}

#[tokio::test]
async fn a_server_with_a_wrong_certificate_is_not_used_until_it_is_right() {
    let (log_lines, _guard) = Captured::start();
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.serve("127.0.0.1", "no");
    let store = secured(&server, other.ca(), None);
    until_logged(&log_lines, "TLS: invalid peer certificate: UnknownIssuer").await;
    assert_eq!(store.now().await, Err(StoreError::Unreachable));
    // The file is read again for the next connection.
    std::fs::copy(authority.ca(), other.ca()).unwrap();
    assert!(store.wait_until_up(PATIENCE).await);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (log_lines, _guard) = Captured::start();
    let authority = Authority::new();
    let server = authority.serve("redis.test", "no");
    let store = secured(&server, authority.ca(), None);
    until_logged(&log_lines, "TLS: invalid peer certificate").await;
    assert!(log_lines.text().contains("not valid for name"));
    assert!(!store.up());
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let (log_lines, _guard) = Captured::start();
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", "yes");
    let without = secured(&server, authority.ca(), None);
    until_logged(&log_lines, "TLS: received fatal alert: CertificateRequired").await;
    assert!(!without.up());
    let with = secured(&server, authority.ca(), Some(authority.issue("gateway")));
    assert!(with.wait_until_up(PATIENCE).await);
    assert!(with.now().await.is_ok());
}

#[tokio::test]
async fn sentinels_are_asked_over_tls_too() {
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", "no");
    let port = free_port();
    let options = authority.options("127.0.0.1", port, "no").into_iter();
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
    let store = reached(Topology::Sentinel(sentinels), authority.ca(), None);
    assert!(store.wait_until_up(PATIENCE).await);
    assert!(store.charge(&[log("l", 1)]).await.unwrap()[0].allowed);
}

#[tokio::test]
async fn a_cluster_is_reached_over_tls() {
    let authority = Authority::new();
    let file = format!("nodes-tls-{}.conf", rand::random::<u64>());
    let clustered = ["--cluster-enabled", "yes", "--cluster-config-file", &file];
    let mut more = clustered.to_vec();
    let folder = authority.folder.path().to_str().unwrap();
    more.extend(["--tls-cluster", "yes", "--dir", folder]);
    let server = authority.serve_with("127.0.0.1", "no", &more);
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    assert_eq!(authority.command(server.port, &slots), "OK");
    let store = reached(
        Topology::Cluster(vec![node(server.port)]),
        authority.ca(),
        None,
    );
    assert!(store.wait_until_up(PATIENCE).await);
    assert!(store.charge(&[log("l", 1)]).await.unwrap()[0].allowed);
}

#[tokio::test]
async fn clear_text_at_a_secured_port_and_tls_at_a_plain_one_both_fail() {
    let authority = Authority::new();
    let secured_server = authority.serve("127.0.0.1", "no");
    let plain = Server::start();
    let clear = address(secured_server.port);
    let clear = open(Engine::Redis(clear), PATIENCE, metrics()).link();
    let tls = secured(&plain, authority.ca(), None);
    assert!(!clear.wait_until_up(Duration::from_millis(300)).await);
    assert!(!tls.wait_until_up(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn a_user_who_lacks_a_command_is_told_which() {
    let (log_lines, _guard) = Captured::start();
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
    let store = open(Engine::Redis(address), PATIENCE, metrics()).link();
    assert!(store.wait_until_up(PATIENCE).await);
    assert_eq!(store.charge(&[log("l", 1)]).await, Err(StoreError::Refused));
    until_logged(&log_lines, "code=\"NOPERM evalsha\"").await;
}
