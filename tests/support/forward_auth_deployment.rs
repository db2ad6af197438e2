//! A proxy that asks a gateway about each request, and a backend behind it.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, client};

use super::client::{Request, Response};
use super::config::Config;
use super::fault_proxy::FaultProxy;
use super::forward_auth_proxy::{Addresses, AuthProgram};
use super::front_proxy::{FrontProxy, NAME};
use super::gateway::{Gateway, SignedIn};
use super::ports;
use super::upstream::Upstream;

/// A proxy that asks a gateway, and forwards to a backend.
pub struct Deployment {
    pub proxy: FrontProxy,
    pub gateway: Gateway,
    pub backend: Upstream,
    /// Between proxy and gateway.
    pub calls: FaultProxy,
}

impl Deployment {
    /// Starts one with this configuration, if the program is installed.
    pub fn start(program: AuthProgram, config: Config, backend: Upstream) -> Option<Deployment> {
        let authorizer = config.file["forward_auth"]["bind"].as_str().unwrap();
        let calls = FaultProxy::before(authorizer.parse().unwrap());
        let gateway = Gateway::start(config);
        let proxy = program.start(&Addresses {
            gateway: gateway.public,
            authorizer: calls.address,
            backend: backend.address,
        })?;
        let label = format!("dialect=\"{}\"", program.dialect());
        let asked = gateway.metric("portcullis_forward_auth_total", &[&label, "allowed"]);
        assert!(asked > 0.0, "{program:?} does not ask as {label}");
        Some(Deployment {
            proxy,
            gateway,
            backend,
            calls,
        })
    }

    /// Sends a request through the proxy on a connection of its own.
    pub fn request(&self, request: &Request) -> Response {
        self.proxy.connect().request(request)
    }

    /// Opens a WebSocket and sends a message through it, or returns the status of the rejection.
    pub fn echo_by_websocket(&self, target: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
        let mut request = format!("ws://{NAME}{target}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let name = http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match client(request, self.proxy.connect_stream()) {
            Ok((mut socket, _)) => {
                socket.send(Message::text("hello")).unwrap();
                Ok(socket.read().unwrap().into_text().unwrap().to_string())
            }
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }
}

/// The base routes without an upstream, and others that the checks need.
pub fn config(backend: &Upstream) -> Config {
    let mut config = Config::new(backend.address)
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.1"]))
        .set("/sessions/cookie/secure", json!(true))
        .set(
            "/forward_auth",
            json!({
                "bind": ports::free().to_string(),
                "trusted_proxies": ["127.0.0.1"],
                "return_credentials": true,
            }),
        )
        .set(
            "/limits/many",
            json!({ "limit": 1000, "window": "1m", "key": "user" }),
        )
        .set(
            "/limits/one",
            json!({ "limit": 1, "window": "1m", "key": "ip" }),
        );
    for route in config.file["routes"].as_array_mut().unwrap() {
        route.as_object_mut().unwrap().remove("upstream");
    }
    config.put("/routes/0/on_unauthenticated", json!("redirect"));
    config.put("/routes/0/limits", json!(["many"]));
    config.put(
        "/api_keys",
        json!({ "self_service": true, "header": "X-API-Key" }),
    );
    config
        .route(json!({
            "name": "resource", "match": { "prefix": "/resource" }, "auth": "required",
            "oauth_resource": true, "cors": { "origins": ["https://spa.example"] },
        }))
        .set(
            "/tokens/introspection",
            json!([{ "name": "corp", "prefix": "corp_", "issuer": "https://id.example",
                "client_id": "a", "client_secret": "b", "url": "http://127.0.0.1:1/introspect" }]),
        )
        .route(json!({
            "name": "admin", "match": { "prefix": "/admin" }, "auth": "required",
            "require": { "roles": ["admin"] },
        }))
        .route(json!({
            "name": "own", "match": { "prefix": "/own" }, "auth": "required",
            "on_unauthenticated": "/public/login?next={return_to}",
        }))
        .route(json!({
            "name": "limited", "match": { "prefix": "/limited" }, "auth": "none", "limits": ["one"],
        }))
}

/// Runs a check behind each program that is installed.
pub fn behind(check: impl Fn(AuthProgram, &Deployment)) {
    for program in AuthProgram::ALL {
        let backend = Upstream::start();
        let config = config(&backend);
        if let Some(deployment) = Deployment::start(program, config, backend) {
            check(program, &deployment);
        }
    }
}

/// Identity headers of a request at the backend: a program may send empty ones. Routes of [`config`] have no
/// assertion.
#[track_caller]
pub fn assert_identity(program: AuthProgram, echo: &Value, user: Option<&SignedIn>) {
    let expected = match user {
        Some(user) => [&*user.user, "ann@example.com", &*user.session, ""],
        None => [""; 4],
    };
    let names = [
        "x-user-id",
        "x-user-email",
        "x-session-id",
        "x-portcullis-assertion",
    ];
    let headers = echo["headers"].as_array().unwrap();
    // Caddy passes on the names of placeholders that have no value.
    let placeholder = headers
        .iter()
        .find(|header| header[1].as_str().unwrap().starts_with('{'));
    assert_eq!(placeholder, None, "{program:?}");
    for (name, value) in names.into_iter().zip(expected) {
        let is_named = |header: &&Value| header[0].as_str().unwrap().eq_ignore_ascii_case(name);
        let values: Vec<_> = headers.iter().filter(is_named).collect();
        let text: String = values
            .iter()
            .map(|header| header[1].as_str().unwrap())
            .collect();
        assert!(
            values.len() <= 1 && text == value,
            "{program:?}: {values:?}"
        );
    }
}
