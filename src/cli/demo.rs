//! `portcullis demo`: a gateway with everything embedded, and a tour of it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use axum::extract::Request;
use axum::{Json, Router};
use secrecy::SecretString;

use super::{DemoArgs, Logging};
use crate::config;
use crate::gateway::{self, Process, StartOptions};
use crate::identity::NewUser;

const EMAIL: &str = "demo@example.com";
/// Printed with the tour; it opens nothing but this demo.
const PASSWORD: &str = "demo-password-1";

/// Serves with everything embedded until a signal says otherwise.
pub(super) fn run(args: &DemoArgs, logging: Logging) -> anyhow::Result<()> {
    let process = Process::start()?;
    let metrics = super::new_metrics()?;
    let logs = logging.start(&metrics)?;
    let folder = tempfile::Builder::new()
        .prefix("portcullis-demo-")
        .tempdir()
        .context("no temporary folder could be made")?;
    let upstream = start_echo_upstream().context("the echoing upstream could not be started")?;
    let text = render_config(args, upstream, folder.path());
    let settings = config::parse(&text, Path::new("demo.yaml"))?;
    let tour = render_tour(args.bind, args.admin_bind);
    let outcome = gateway::run(StartOptions {
        process,
        settings,
        file: None,
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
            // A reader who has gone away is not an error.
            let _ = super::print(&tour);
        }),
    });
    logs.flush();
    outcome
}

fn render_config(args: &DemoArgs, upstream: SocketAddr, folder: &Path) -> String {
    format!(
        "listeners:
  - bind: {bind}
    # Within the usual limit of 1,024 open files.
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
  # The demo speaks plain HTTP.
  cookie: {{ secure: false }}
identity:
  builtin:
    registration: open
limits:
  per-user: {{ algorithm: sliding_window, limit: 5, window: 10s, key: user }}
upstreams:
  echo:
    servers: [\"http://{upstream}\"]
routes:
  - name: public
    match: {{ prefix: /public }}
    auth: none
    upstream: echo
  - name: everything-else
    auth: required
    limits: [per-user]
    upstream: echo
",
        bind = args.bind,
        admin = args.admin_bind,
        database = folder.join("portcullis.db").display(),
        secret = hex::encode(rand::random::<[u8; 32]>()),
    )
}

/// An upstream on a loopback port that answers with what it got.
fn start_echo_upstream() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, Router::new().fallback(echo_request)).await
            })
        })?;
    Ok(address)
}

async fn echo_request(request: Request) -> Json<serde_json::Value> {
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
    Json(serde_json::json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "headers": headers,
    }))
}

/// Every line that is not a comment works as it stands, one after another.
fn render_tour(bind: SocketAddr, admin: SocketAddr) -> String {
    format!(
        r#"
Portcullis is listening on http://{bind}, its admin listener on http://{admin}.
Everything is embedded: sessions and limits in memory, users in SQLite, an upstream that echoes.
There is a user, {EMAIL}, whose password is {PASSWORD}.

Paste these lines into another shell, one after another:

# A public route: the upstream tells what it got.
curl -s http://{bind}/public/hello
# Without a credential the rest is closed: 401.
curl -s http://{bind}/hello
# Sign in, and keep the access token.
TOKEN=$(curl -s -H 'Content-Type: application/json' -d '{{"email":"{EMAIL}","password":"{PASSWORD}"}}' http://{bind}/api/v1/auth/login | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
# Call with it: the upstream learns who you are, and the headers tell where the limit stands.
curl -si -H "Authorization: Bearer $TOKEN" http://{bind}/hello
# Call too often: the sixth call in ten seconds is a 429, with a Retry-After that is true.
for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}}\n' -H "Authorization: Bearer $TOKEN" http://{bind}/hello; done
# List your sessions.
curl -s -H "Authorization: Bearer $TOKEN" http://{bind}/api/v1/sessions
# Sign out: 204.
curl -s -o /dev/null -w '%{{http_code}}\n' -X POST -H "Authorization: Bearer $TOKEN" http://{bind}/api/v1/auth/logout
# The token is refused from now on: 401.
curl -s -H "Authorization: Bearer $TOKEN" http://{bind}/hello
# What Prometheus would read.
curl -s http://{admin}/metrics | grep portcullis_requests_total

Ctrl-C ends it.
"#
    )
}
