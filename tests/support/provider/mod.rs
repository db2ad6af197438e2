//! An OpenID provider of the tests' own, which does everything right until a test says otherwise.
//!
//! ```text
//! let provider = Provider::start();
//! let config = provider.configure(Config::new(upstream.address));     // as `corp`
//! let gateway = Gateway::start(config);
//! let mut visitor = Visitor::new();
//! let page = visitor.open(&provider.start_url(&gateway, "/private/a")); // over the provider, and back
//! ```
//!
//! | to | call |
//! | --- | --- |
//! | sign another user in | `set_user(User::new("bob").claim("groups", json!(["staff"])))` |
//! | change an ID token | `vary_id_token(\|token\| token.claims["aud"] = json!("other"))` |
//! | change the parameters that lead back | `vary_callback(\|callback\| callback.set("iss", "https://other"))` |
//! | change any response | `vary(Endpoint::Token, \|reply\| reply.refuse(400, "invalid_grant"))` |
//! | the same for one response | `vary_next(Endpoint::Token, …)` |
//! | delay, drip, reset, endless bodies | `vary(Endpoint::Keys, \|reply\| reply.transfer = Transfer::Endless)` |
//! | behave again | `behave()` |
//! | change keys | `rotate_key("RS256")`, `add_key("ES384")` |
//! | take tokens back | `revoke_grants()` |
//! | end and start again on the same port | `stop()`, `restart()` |
//! | look at what arrived | `received(Endpoint::Token)`, `exchanges("refresh_token")` |
//! | search for secrets elsewhere | `secrets()` |
//! | log a user out | `logout_token(json!({ "sid": provider.latest_sid() }))`, `send_logout(…)` |
//!
//! It redirects back at once, as the chosen user. It has an API like GitHub's too: `configure_github`.

mod authorization;
mod grants;
mod introspection;
mod keys;
mod received;
mod reply;
mod server;
mod state;
mod token_endpoint;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use authorization::Callback;
pub use grants::User;
pub use keys::{Jwt, Signature, SigningKey};
use parking_lot::Mutex;
pub use received::{Endpoint, Received};
pub use reply::{Reply, Transfer};
use rustls::ServerConfig;
use serde_json::{Value, json};
use server::Server;
use state::State;

use super::client::{Request, Response};
use super::config::Config;
use super::gateway::Gateway;
use super::tls::{self, Certificate};
use super::tokens;
use super::wait::eventually;

/// The name of the provider in the configuration.
pub const CORP: &str = "corp";
pub const CLIENT_ID: &str = "a client: 100% + odd";
/// Its characters change when they are form-encoded.
pub const CLIENT_SECRET: &str = "a client's secret: 100% + odd & long enough";

/// A running provider.
pub struct Provider {
    pub address: SocketAddr,
    /// Without a slash at the end.
    pub issuer: String,
    state: Arc<State>,
    server: Mutex<Option<Server>>,
    certificate: Option<Certificate>,
    tls: Option<Arc<ServerConfig>>,
}

impl Provider {
    /// Starts one in clear.
    pub fn start() -> Provider {
        Provider::start_with(None)
    }

    /// Starts one at `https://localhost`, with a certificate of its own.
    pub fn start_tls() -> Provider {
        Provider::start_with(Some(tls::certificate("localhost")))
    }

    fn start_with(certificate: Option<Certificate>) -> Provider {
        let address = super::ports::free();
        let issuer = match certificate {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let provider = Provider {
            address,
            state: Arc::new(State::new(&issuer)),
            issuer,
            server: Mutex::new(None),
            tls: certificate.as_ref().map(tls::server),
            certificate,
        };
        provider.restart();
        provider
    }

    /// Closes the port and every connection.
    pub fn stop(&self) {
        if let Some(server) = self.server.lock().take() {
            server.stop();
        }
    }

    /// Listens on the same port again, with everything that it knew.
    pub fn restart(&self) {
        self.stop();
        let (listener, state) = (server::bind(self.address), Arc::clone(&self.state));
        *self.server.lock() = Some(Server::start(listener, self.tls.clone(), state));
    }

    /// What the gateway's configuration says of it.
    pub fn settings(&self) -> Value {
        json!({
            "issuer": self.issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
            "allow": "anyone",
        })
    }

    /// Adds it to a configuration as `corp`.
    pub fn configure(&self, config: Config) -> Config {
        let mut settings = self.settings();
        if let Some(certificate) = &self.certificate {
            let file = config.write_beside("provider.pem", &certificate.cert);
            settings["tls"] = json!({ "ca": file });
        }
        config.set(&format!("/identity/providers/{CORP}"), settings)
    }

    /// What the configuration says of its API like GitHub's.
    pub fn github_settings(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "kind": "github", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
            "scopes": ["read:user", "user:email", "read:org"], "allow": "anyone",
            "endpoints": {
                "authorization": at("/login/oauth/authorize"),
                "token": at("/login/oauth/access_token"),
                "userinfo": at("/user"),
            },
        })
    }

    /// Adds its API like GitHub's to a configuration as `hub`.
    pub fn configure_github(&self, config: Config) -> Config {
        config.set("/identity/providers/hub", self.github_settings())
    }

    /// Where a sign-in at a gateway starts.
    pub fn start_url(&self, gateway: &Gateway, return_to: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("return_to", return_to);
        let query = query.finish();
        format!("http://{}/api/v1/auth/start/{CORP}?{query}", gateway.public)
    }

    /// The certificate of `https`.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Signs this user in from now on.
    pub fn set_user(&self, user: User) {
        self.state.options.lock().user = user;
    }

    /// Gives this `sid`, or none, from now on; otherwise each authorization has its own.
    pub fn set_sid(&self, sid: Option<&str>) {
        self.state.options.lock().sid = Some(sid.map(str::to_owned));
    }

    /// The lifetime of access tokens, in seconds.
    pub fn set_expires_in(&self, seconds: u64) {
        self.state.options.lock().expires_in = seconds;
    }

    /// Whether a refresh replaces the refresh token, which it does at first.
    pub fn set_rotation(&self, rotates: bool) {
        self.state.options.lock().rotates = rotates;
    }

    /// Where users authenticated this long ago.
    pub fn set_authentication_age(&self, age: Duration) {
        self.state.options.lock().authentication_age = age.as_secs() as i64;
    }

    /// The keys by which clients sign their assertions (`private_key_jwt`).
    pub fn set_client_keys(&self, keys: Value) {
        self.state.options.lock().client_keys = Some(keys);
    }

    /// Changes every response of an endpoint.
    pub fn vary(&self, endpoint: Endpoint, change: impl Fn(&mut Reply) + Send + Sync + 'static) {
        self.state.vary(endpoint, None, Arc::new(change));
    }

    /// Changes the next response of an endpoint.
    pub fn vary_next(
        &self,
        endpoint: Endpoint,
        change: impl Fn(&mut Reply) + Send + Sync + 'static,
    ) {
        self.state.vary(endpoint, Some(1), Arc::new(change));
    }

    /// Changes every ID token before it is signed.
    pub fn vary_id_token(&self, change: impl Fn(&mut Jwt) + Send + Sync + 'static) {
        self.state.options.lock().id_token = Some(Arc::new(change));
    }

    /// Changes the parameters with which browsers are sent back.
    pub fn vary_callback(&self, change: impl Fn(&mut Callback) + Send + Sync + 'static) {
        self.state.options.lock().callback = Some(Arc::new(change));
    }

    /// Changes the token of a response by `response_mode=jwt` before it is signed.
    pub fn vary_response_token(&self, change: impl Fn(&mut Jwt) + Send + Sync + 'static) {
        self.state.options.lock().response_token = Some(Arc::new(change));
    }

    /// Takes every variation back.
    pub fn behave(&self) {
        self.state.behave();
    }

    /// Signs with a new key and publishes no other.
    pub fn rotate_key(&self, algorithm: &str) -> Arc<SigningKey> {
        let key = self.state.new_key(algorithm);
        *self.state.keys.lock() = vec![Arc::clone(&key)];
        key
    }

    /// Signs with a new key and goes on to publish the older ones.
    pub fn add_key(&self, algorithm: &str) -> Arc<SigningKey> {
        let key = self.state.new_key(algorithm);
        self.state.keys.lock().insert(0, Arc::clone(&key));
        key
    }

    /// The key that signs.
    pub fn key(&self) -> Arc<SigningKey> {
        self.state.key()
    }

    /// Forgets every code and token that it has issued.
    pub fn revoke_grants(&self) {
        self.state.revoke_grants();
    }

    /// The requests that an endpoint received.
    pub fn received(&self, endpoint: Endpoint) -> Vec<Received> {
        let received = self.state.received.lock();
        let of_endpoint = received.iter().filter(|seen| seen.endpoint == endpoint);
        of_endpoint.cloned().collect()
    }

    /// Waits until an endpoint has received this many requests, and returns them.
    pub fn await_received(&self, endpoint: Endpoint, count: usize) -> Vec<Received> {
        eventually(&format!("{count} requests of {endpoint:?}"), || {
            let received = self.received(endpoint);
            (received.len() >= count).then_some(received)
        })
    }

    /// How many requests with this `grant_type` the token endpoint received.
    pub fn exchanges(&self, grant_type: &str) -> usize {
        let received = self.received(Endpoint::Token).into_iter();
        let of_type = |seen: &Received| seen.parameter("grant_type").as_deref() == Some(grant_type);
        received.filter(of_type).count()
    }

    /// Codes, tokens, states, nonces, verifiers, hints and the client's secret: all seen so far.
    pub fn secrets(&self) -> Vec<String> {
        self.state.secrets()
    }

    /// The `sid` of the latest authorization.
    pub fn latest_sid(&self) -> Option<String> {
        self.state.latest_sid.lock().clone()
    }

    /// A right logout token with these further claims (`sub`, `sid`), to be changed and encoded.
    pub fn logout_token(&self, claims: &Value) -> Jwt {
        let now = tokens::now();
        let mut all = json!({
            "iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120,
            "jti": self.state.grants.lock().secret(),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let further = claims.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(further);
        let mut token = Jwt::new(&self.key(), all);
        token.header["typ"] = json!("logout+jwt");
        token
    }

    /// Sends a logout token to a gateway.
    pub fn send_logout(&self, gateway: &Gateway, token: &str) -> Response {
        self.state.grants.lock().secrets.push(token.to_owned());
        let path = format!("/api/v1/auth/backchannel-logout/{CORP}");
        let form = Request::post(&path).header("Content-Type", "application/x-www-form-urlencoded");
        gateway.request(&form.body(format!("logout_token={token}")))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}
