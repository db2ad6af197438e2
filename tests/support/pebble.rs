//! Pebble, a real certificate authority that speaks ACME, with a name server of its own by which every
//! domain is on loopback.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Client, Request};
use super::ports;
use super::tls::{self, Certificate};
use super::wait::eventually;

/// An authority at an address that is known before it runs.
pub struct Pebble {
    address: SocketAddr,
    management: SocketAddr,
    names: SocketAddr,
    /// Signs the certificate of the directory.
    authority: Certificate,
    folder: TempDir,
    processes: Vec<Child>,
}

/// How an authority behaves.
#[derive(Default)]
pub struct Behavior {
    /// Where it expects responses to `http-01`.
    pub http: Option<SocketAddr>,
    /// Where it makes handshakes for `tls-alpn-01`.
    pub tls: Option<SocketAddr>,
    /// Life of its certificates, in seconds.
    pub life: Option<u64>,
    /// Domains for which it issues no certificates.
    pub blocked: Vec<String>,
    /// ID and key, base64url, of the external account that it requires.
    pub external_account: Option<(String, String)>,
    /// How many of a hundred valid nonces it rejects.
    pub rejected_nonces: u32,
}

impl Pebble {
    /// Reserves addresses. `None`, with a message: this machine has no Pebble.
    pub fn reserve() -> Option<Pebble> {
        let found = Command::new("pebble")
            .arg("-h")
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            eprintln!("skipped: there is no pebble (scripts/setup tests installs it)");
            return None;
        }
        let (authority, own) = tls::issue("127.0.0.1");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own.pem"), &own.cert).unwrap();
        std::fs::write(folder.path().join("own.key"), &own.key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), &authority.cert).unwrap();
        Some(Pebble {
            address: ports::free(),
            management: ports::free(),
            names: ports::free(),
            authority,
            folder,
            processes: Vec::new(),
        })
    }

    /// Starts it, or starts it anew: then it knows nothing of before, and has another root.
    pub fn start(&mut self, behavior: &Behavior) {
        self.stop();
        let file = self.folder.path().join("pebble.json");
        let port = |address: Option<SocketAddr>| address.map_or(1, |address| address.port());
        let keys = behavior.external_account.iter().cloned();
        let keys: HashMap<String, String> = keys.collect();
        let settings = json!({ "pebble": {
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": self.folder.path().join("own.pem"),
            "privateKey": self.folder.path().join("own.key"),
            "httpPort": port(behavior.http),
            "tlsPort": port(behavior.tls),
            "domainBlocklist": behavior.blocked,
            "certificateValidityPeriod": behavior.life.unwrap_or(90 * 86_400),
            "externalAccountBindingRequired": behavior.external_account.is_some(),
            "externalAccountMACKeys": keys,
        }});
        std::fs::write(&file, settings.to_string()).unwrap();
        let log = File::create(self.folder.path().join("log")).unwrap();
        let names = Command::new("pebble-challtestsrv")
            .args(["-dns01", &self.names.to_string(), "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-management", &ports::free().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let pebble = Command::new("pebble")
            .args(["-config", file.to_str().unwrap()])
            .args(["-dnsserver", &self.names.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env(
                "PEBBLE_WFE_NONCEREJECT",
                behavior.rejected_nonces.to_string(),
            )
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.processes = vec![names.unwrap(), pebble.unwrap()];
        eventually("Pebble responds", || self.try_root());
    }

    /// Ends it.
    pub fn stop(&mut self) {
        for mut process in self.processes.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The settings of a listener for these domains.
    pub fn settings(&self, domains: &[&str], challenge: &str) -> Value {
        json!({
            "directory": self.directory(),
            "email": "ops@example.com",
            "accept_terms": true,
            "domains": domains,
            "challenge": challenge,
            "ca": self.ca_file(),
        })
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The root of the certificates that it issues.
    pub fn root(&self) -> Certificate {
        self.try_root().unwrap()
    }

    fn try_root(&self) -> Option<Certificate> {
        let config = tls::client(&self.authority, &["http/1.1"]);
        let stream = tls::connect(self.management, "127.0.0.1", &config).ok()?;
        let mut client = Client::from_stream(stream);
        let response = client.request(&Request::get("/roots/0"));
        let cert = response.text();
        let der = CertificateDer::from_pem_slice(cert.as_bytes()).ok()?;
        let key = String::new();
        Some(Certificate { cert, key, der })
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- Pebble's log ---\n{}", log.unwrap_or_default());
        }
    }
}
