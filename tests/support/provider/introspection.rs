//! The introspection endpoint (RFC 7662).

use serde_json::{Value, json};

use super::received::Received;
use super::reply::Reply;
use super::state::State;
use super::token_endpoint::client_fault;
use super::{CLIENT_ID, CLIENT_SECRET, Provider};

pub(super) fn respond(state: &State, request: &Received) -> Reply {
    let is_authenticated = request.header("authorization").is_some()
        || request.parameter("client_secret").is_some()
        || request.parameter("client_assertion").is_some();
    if !is_authenticated || client_fault(state, request).is_some() {
        return Reply::json(401, &json!({ "error": "invalid_client" }));
    }
    let token = request.parameter("token").unwrap_or_default();
    let active = state.active_tokens.lock().get(&token).cloned();
    let mut body = active.unwrap_or(json!({ "active": false }));
    if body.get("active").is_none() {
        body["active"] = json!(true);
    }
    Reply::json(200, &body)
}

impl Provider {
    /// An introspection entry of this name, by the address of the endpoint.
    pub fn introspection_settings(&self, name: &str) -> Value {
        json!({
            "name": name, "url": format!("{}/introspect", self.issuer),
            "issuer": self.issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
        })
    }

    /// Makes an opaque token active, with these members in the response.
    pub fn set_token(&self, token: &str, members: Value) {
        let mut tokens = self.state.active_tokens.lock();
        tokens.insert(token.to_owned(), members);
    }

    /// Revokes an opaque token.
    pub fn forget_token(&self, token: &str) {
        self.state.active_tokens.lock().remove(token);
    }
}
