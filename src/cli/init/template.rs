//! The file that `init` writes.

use serde_json::Value;

use super::choices::{Choices, SignIn, TlsChoice};

/// Address of the gateway behind a proxy on the same machine.
const BEHIND_PROXY: &str = "127.0.0.1:8080";

/// Name of the file with the key that signs tokens.
pub(super) fn signing_key(stem: &str) -> String {
    format!("{stem}-signing.pem")
}

/// Name of the file with the token of the admin listener.
pub(super) fn admin_token(stem: &str) -> String {
    format!("{stem}-admin.token")
}

/// Name of the file with the password of the store.
pub(super) fn store_password(stem: &str) -> String {
    format!("{stem}-store.password")
}

/// Renders the file. `stem` begins the names of the files with secrets.
pub(super) fn render(choices: &Choices, stem: &str) -> String {
    format!(
        "\
# Configuration of Portcullis, written by `portcullis init`. docs/configuration.md describes all keys;
# `portcullis config show` prints them with their defaults. Secrets are in files of their own.

{listener}
# Health, metrics and administration. Keep it off public networks.
admin:
  bind: 127.0.0.1:9090
  token_file: {token}

{store}
# Users are in a file in the working directory of the gateway. A fleet needs PostgreSQL:
# postgres://USER@HOST:PORT/DATABASE
database:
  url: sqlite:portcullis.db

# The key that signs access tokens; `portcullis keys generate` creates another one.
tokens:
  signing:
    algorithm: EdDSA
    key_file: {signing}

{sessions}{sign_in}
limits:
  # Counted by address, before authentication: limits a flood of invalid credentials.
  per-address: {{ limit: 300, window: 1m, key: ip }}
  per-user: {{ limit: 100, window: 1m, key: user }}

upstreams:
  backend:
    servers: [{upstream}]

routes:
  # Every path requires a session or a token. A path without them is another route, such as:
  # - {{ name: assets, match: {{ prefix: /assets }}, auth: none, upstream: backend }}
  - name: backend
    match: {{ prefix: / }}
    auth: required
    on_unauthenticated: redirect # browsers are sent to the sign-in page
    limits: [per-address, per-user]
    upstream: backend
",
        listener = listener(choices),
        token = quote(&admin_token(stem)),
        store = store(choices, stem),
        signing = quote(&signing_key(stem)),
        sessions = sessions(choices),
        sign_in = sign_in(choices),
        upstream = quote(&choices.upstream),
    )
}

fn listener(choices: &Choices) -> String {
    let url = &choices.public_url;
    let host = match url.is_local {
        true => "127.0.0.1",
        false => "0.0.0.0",
    };
    let port = url.port;
    match &choices.tls {
        TlsChoice::None => format!("listeners:\n  - bind: {host}:{port}\n"),
        TlsChoice::Proxy => format!(
            "\
listeners:
  - bind: {BEHIND_PROXY}
    # The proxy that terminates TLS. The client address is read from its X-Forwarded-For.
    trusted_proxies: [127.0.0.1, \"::1\"]
"
        ),
        TlsChoice::Certificate { cert, key } => format!(
            "\
listeners:
  - bind: {host}:{port}
    # The files are re-read when they change.
    tls:
      certificates:
        - cert: {}
          key: {}
",
            quote(cert),
            quote(key)
        ),
    }
}

fn store(choices: &Choices, stem: &str) -> String {
    let store = &choices.store;
    let comment = match store.url.as_str() {
        "memory" => {
            "# Sessions and counters are in the memory of the gateway and end with it. A fleet shares a Redis:\n\
             # redis://127.0.0.1:6379"
        }
        _ => "# Sessions, revocations and counters, shared by all gateways.",
    };
    let password = match store.password {
        Some(_) => format!("  password_file: {}\n", quote(&store_password(stem))),
        None => String::new(),
    };
    let url = quote(&store.url);
    format!("{comment}\nstore:\n  url: {url}\n{password}")
}

fn sessions(choices: &Choices) -> String {
    let url = &choices.public_url;
    if url.is_https || url.is_local {
        return String::new();
    }
    "\
# Browsers send a secure cookie over https only. Without TLS, others on the network can read it.
sessions:
  cookie: { secure: false }

"
    .to_owned()
}

fn sign_in(choices: &Choices) -> String {
    let origin = quote(&choices.public_url.origin);
    match &choices.sign_in {
        SignIn::Passwords => "\
identity:
  builtin:
    # Users are added with `portcullis users add`. `open` allows anyone to register.
    registration: closed
"
        .to_owned(),
        SignIn::Provider {
            issuer,
            client_id,
            domain,
        } => format!(
            "\
api:
  # Origin of the redirect address, which is registered at the provider;
  # `portcullis check --connect` prints it.
  public_url: {origin}

identity:
  providers:
    corp:
      issuer: {}
      client_id: {}
      client_secret: ${{OIDC_SECRET}}
      # Who may sign in: users with a verified email in these domains.
      allow: {{ domains: [{}] }}
",
            quote(issuer),
            quote(client_id),
            quote(domain)
        ),
    }
}

/// Writes a text as a YAML string, without references to variables.
fn quote(text: &str) -> String {
    Value::from(text.replace('$', "$$")).to_string()
}
