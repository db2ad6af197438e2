//! `portcullis demo`: a self-contained gateway with a tour.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;

use super::{DemoArgs, Logging};
use crate::config::{self, FilesRead};
use crate::gateway::{self, ActivatedSockets, Process, SocketSource, StartOptions};
use crate::identity::NewUser;

const EMAIL: &str = "demo@example.com";
/// Printed with the tour; valid only for this demo.
const PASSWORD: &str = "demo-password-1";

/// Runs a self-contained gateway until a signal ends it.
pub(super) fn run(args: &DemoArgs, logging: Logging) -> anyhow::Result<()> {
    let process = Process::start()?;
    let metrics = super::new_metrics()?;
    let logs = logging.start(&metrics)?;
    let folder = TemporaryFolder::create().context("cannot create a temporary directory")?;
    let upstream = start_echo_upstream().context("cannot start the echo upstream")?;
    let text = render_config(args, upstream, &folder.0);
    let settings = config::parse(&text, Path::new("demo.yaml"))?;
    let tour = render_tour(args);
    let outcome = gateway::run(StartOptions {
        process,
        sockets: SocketSource::ServiceManager(ActivatedSockets::default()),
        settings,
        source: None,
        files: FilesRead::default(),
        metrics,
        logs: logs.clone(),
        seed_users: vec![NewUser {
            email: EMAIL.to_owned(),
            username: Some("demo".to_owned()),
            name: Some("Demo".to_owned()),
            password: SecretString::from(PASSWORD),
            roles: vec!["member".to_owned()],
            scopes: Vec::new(),
            disabled: false,
        }],
        on_ready: Box::new(move |_| {
            // A closed standard output is not an error.
            let _ = super::print(&tour);
        }),
    });
    logs.flush();
    outcome
}

/// A folder that only this user can read; removed when the value is dropped.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create() -> std::io::Result<TemporaryFolder> {
        let name = format!("portcullis-demo-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn render_config(args: &DemoArgs, upstream: SocketAddr, folder: &Path) -> String {
    format!(
        "listeners:
  - bind: {bind}
    # Below the usual limit of 1,024 open files.
    limits: {{ connections: 300 }}
admin:
  bind: {admin}
store:
  url: memory
database:
  url: sqlite:{database}
tokens:
  signing: {{ algorithm: HS256, secret: {secret} }}
sessions:
  # The demo uses plain HTTP.
  cookie: {{ secure: false }}
identity:
  builtin:
    registration: open
api_keys:
  self_service: true
  header: X-API-Key
limits:
  per-user: {{ algorithm: sliding_window, limit: 5, window: 10s, key: user }}
  per-key: {{ algorithm: token_bucket, limit: 60, window: 1m, key: token }}
upstreams:
  echo:
    servers: [\"http://{upstream}\"]
routes:
  - name: public
    match: {{ prefix: /public }}
    auth: none
    upstream: echo
  - name: programs
    match: {{ prefix: /jobs }}
    auth: required
    accept: [api_key]
    limits: [per-key]
    upstream: echo
  - name: everything-else
    auth: required
    limits: [per-user]
    upstream: echo
forward_auth:
  bind: {authorizer}
  trusted_proxies: [127.0.0.1, \"::1\"]
",
        bind = args.bind,
        admin = args.admin_bind,
        authorizer = args.forward_auth_bind,
        database = folder.join("portcullis.db").display(),
        secret = hex::encode(rand::random::<[u8; 32]>()),
    )
}

/// Starts an upstream on a loopback port that responds with the request it received.
fn start_echo_upstream() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || runtime.block_on(echo_requests(listener)))?;
    Ok(address)
}

async fn echo_requests(listener: std::net::TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let echo = service_fn(async |request| {
            Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .body(echo_request(&request))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), echo));
    }
}

fn echo_request(request: &Request<Incoming>) -> String {
    let headers: serde_json::Map<String, serde_json::Value> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        })
        .collect();
    let echo = serde_json::json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "headers": headers,
    });
    echo.to_string()
}

/// Renders the tour. Every line that is not a comment can be run as it is, in order.
fn render_tour(args: &DemoArgs) -> String {
    let (bind, admin, authorizer) = (args.bind, args.admin_bind, args.forward_auth_bind);
    format!(
        r#"
Portcullis is listening on http://{bind}, its admin listener on http://{admin}.
Other proxies query http://{authorizer} before they forward a request themselves.
Sessions and limits are in memory, users are in SQLite, and the upstream echoes requests.
The user {EMAIL} has the password {PASSWORD}.

Run these commands in another shell, in order:

# A public route. The upstream echoes the request that it received.
curl -s http://{bind}/public/hello
# Other routes require a credential: 401.
curl -s http://{bind}/hello
# Sign in and save the access token.
TOKEN=$(curl -s -H 'Content-Type: application/json' -d '{{"email":"{EMAIL}","password":"{PASSWORD}"}}' http://{bind}/api/v1/auth/login | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
# Use the token. The upstream receives your identity, and the headers show the state of the limit.
curl -si -H "Authorization: Bearer $TOKEN" http://{bind}/hello
# Query as nginx or Caddy would in front of a backend of its own: 200 with your identity, which it forwards.
curl -si -H "Authorization: Bearer $TOKEN" -H 'X-Forwarded-Method: GET' -H 'X-Forwarded-Proto: http' -H 'X-Forwarded-Host: shop.example' -H 'X-Forwarded-Uri: /hello' -H 'X-Forwarded-For: 192.0.2.1' http://{authorizer}/forward-auth
# Without a credential: 401, which it sends to the client.
curl -si -H 'X-Forwarded-Method: GET' -H 'X-Forwarded-Proto: http' -H 'X-Forwarded-Host: shop.example' -H 'X-Forwarded-Uri: /hello' -H 'X-Forwarded-For: 192.0.2.1' http://{authorizer}/forward-auth
# Exceed the limit: the sixth request in ten seconds is rejected with 429 and an exact Retry-After.
for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}}\n' -H "Authorization: Bearer $TOKEN" http://{bind}/hello; done
# List your sessions.
curl -s -H "Authorization: Bearer $TOKEN" http://{bind}/api/v1/sessions
# Create an API key for a program. It is shown this once.
KEY=$(curl -s -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"name":"nightly job"}}' http://{bind}/api/v1/api-keys | sed 's/.*"key":"\([^"]*\)".*/\1/')
# Use it, in a header of its own or as a bearer token. The upstream receives your identity, and the headers show the state of the key's own limit.
curl -si -H "X-API-Key: $KEY" http://{bind}/jobs/nightly
# Revoke it: 204. Its ID is the part between the underscores.
curl -s -o /dev/null -w '%{{http_code}}\n' -X DELETE -H "Authorization: Bearer $TOKEN" "http://{bind}/api/v1/api-keys/$(echo "$KEY" | cut -d_ -f2)"
# The key is rejected from now on: 401.
curl -s -H "Authorization: Bearer $KEY" http://{bind}/jobs/nightly
# Sign out: 204.
curl -s -o /dev/null -w '%{{http_code}}\n' -X POST -H "Authorization: Bearer $TOKEN" http://{bind}/api/v1/auth/logout
# The token is rejected from now on: 401.
curl -s -H "Authorization: Bearer $TOKEN" http://{bind}/hello
# The metrics for Prometheus.
curl -s http://{admin}/metrics | grep portcullis_requests_total

Press Ctrl-C to stop.
"#
    )
}
