//! Endpoints that browsers visit: the authorization, pushed requests, the end of a session.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::CLIENT_ID;
use super::grants::Grant;
use super::keys::Jwt;
use super::received::Received;
use super::reply::Reply;
use super::state::State;
use super::token_endpoint::{client_fault, refusal};
use crate::support::tokens;

/// The parameters with which a browser is sent back. They may be given twice.
pub struct Callback {
    pub parameters: Vec<(String, String)>,
    /// How they are sent: `query`, `form_post`, `jwt`, or `fragment`.
    pub response_mode: String,
}

impl Callback {
    /// Sets a parameter.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    /// Gives a parameter once more.
    pub fn add(&mut self, name: &str, value: &str) {
        self.parameters.push((name.to_owned(), value.to_owned()));
    }

    pub fn remove(&mut self, name: &str) {
        self.parameters.retain(|(known, _)| known != name);
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Refuses: an error in place of the code.
    pub fn refuse(&mut self, error: &str) {
        self.remove("code");
        self.set("error", error);
        self.set("error_description", "A description that no page repeats.");
    }
}

/// Sends the browser back at once, as the chosen user.
pub(super) fn respond(state: &State, request: &Received) -> Reply {
    let mut sent: HashMap<_, _> = request.parameters().into_iter().collect();
    if let Some(pushed) = sent.get("request_uri") {
        let known = state.grants.lock().pushed.remove(pushed);
        match known {
            Some(parameters) => sent = parameters,
            None => return fault("request_uri"),
        }
    }
    // The parameters of an API like GitHub's have no challenge of their own form.
    let is_oidc = request.path == "/authorize";
    let Some(redirect_uri) = sent.get("redirect_uri").cloned() else {
        return fault("redirect_uri");
    };
    for (name, right) in [
        ("client_id", CLIENT_ID),
        ("response_type", "code"),
        ("code_challenge_method", "S256"),
    ] {
        if sent.get(name).map(String::as_str) != Some(right) {
            return fault(name);
        }
    }
    for name in ["state", "nonce", "code_challenge"] {
        let is_needed = is_oidc || name != "nonce";
        if is_needed && sent.get(name).is_none_or(|value| value.len() < 22) {
            return fault(name);
        }
    }
    let callback = callback(state, sent, is_oidc);
    send_back(state, &redirect_uri, &callback)
}

fn callback(state: &State, request: HashMap<String, String>, is_oidc: bool) -> Callback {
    let (user, sid, age, change) = {
        let options = state.options.lock();
        let chosen = (options.user.clone(), options.sid.clone());
        let sid = chosen.1.unwrap_or_else(|| {
            let random = rand::random::<[u8; 16]>();
            Some(format!("sid-{}", hex::encode(random)))
        });
        let age = options.authentication_age;
        (chosen.0, sid, age, options.callback.clone())
    };
    state.latest_sid.lock().clone_from(&sid);
    let response_mode = request
        .get("response_mode")
        .cloned()
        .unwrap_or_else(|| "query".to_owned());
    let mut grants = state.grants.lock();
    let code = grants.secret();
    let mut parameters = vec![("code".to_owned(), code.clone())];
    if let Some(value) = request.get("state") {
        parameters.push(("state".to_owned(), value.clone()));
    }
    if is_oidc && !response_mode.contains("jwt") {
        parameters.push(("iss".to_owned(), state.issuer.clone()));
    }
    let grant = Grant {
        user,
        request,
        sid,
        authenticated_at: tokens::now() - age,
    };
    grants.codes.insert(code, grant);
    drop(grants);
    let mut callback = Callback {
        parameters,
        response_mode,
    };
    if let Some(change) = change {
        change(&mut callback);
    }
    callback
}

fn send_back(state: &State, redirect_uri: &str, callback: &Callback) -> Reply {
    let encoded = |parameters: &[(String, String)]| {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(parameters).finish()
    };
    match &*callback.response_mode {
        "form_post" => self_submitting_form(redirect_uri, &callback.parameters),
        "jwt" | "query.jwt" => {
            let token = response_token(state, &callback.parameters);
            let only = [("response".to_owned(), token)];
            Reply::redirect(&format!("{redirect_uri}?{}", encoded(&only)))
        }
        "fragment" => Reply::redirect(&format!("{redirect_uri}#{}", encoded(&callback.parameters))),
        _ => Reply::redirect(&format!("{redirect_uri}?{}", encoded(&callback.parameters))),
    }
}

/// The response as a signed token (JARM).
fn response_token(state: &State, parameters: &[(String, String)]) -> String {
    let mut claims = json!({ "iss": state.issuer, "aud": CLIENT_ID, "exp": tokens::now() + 600 });
    for (name, value) in parameters {
        claims[name] = Value::String(value.clone());
    }
    let mut token = Jwt::new(&state.key(), claims);
    let change = state.options.lock().response_token.clone();
    if let Some(change) = change {
        change(&mut token);
    }
    token.encode()
}

/// A page that submits itself where scripts run, and by its button elsewhere.
fn self_submitting_form(action: &str, parameters: &[(String, String)]) -> Reply {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('"', "&quot;")
            .replace('<', "&lt;")
    };
    let fields: String = parameters
        .iter()
        .map(|(name, value)| {
            format!(
                "<input type=\"hidden\" name=\"{}\" value=\"{}\">",
                escape(name),
                escape(value)
            )
        })
        .collect();
    let page = format!(
        "<!doctype html><title>Submit</title><body onload=\"document.forms[0].submit()\">\
         <form method=\"post\" action=\"{}\">{fields}<button>Continue</button></form>",
        escape(action)
    );
    Reply::text(200, "text/html; charset=utf-8", &page)
}

/// A pushed authorization request (RFC 9126).
pub(super) fn push(state: &State, request: &Received) -> Reply {
    if let Some(fault) = client_fault(state, request) {
        return refusal(401, "invalid_client", fault);
    }
    let mut grants = state.grants.lock();
    let request_uri = format!("urn:ietf:params:oauth:request_uri:{}", grants.secret());
    let parameters = request.parameters().into_iter().collect();
    grants.pushed.insert(request_uri.clone(), parameters);
    Reply::json(
        201,
        &json!({ "request_uri": request_uri, "expires_in": 60 }),
    )
}

/// Ends the provider's own session, which it does not have, and sends the browser back.
pub(super) fn end_session(request: &Received) -> Reply {
    let Some(target) = request.parameter("post_logout_redirect_uri") else {
        return Reply::text(200, "text/html", "<!doctype html><title>Ended</title>");
    };
    let mut target = url::Url::parse(&target).unwrap();
    if let Some(value) = request.parameter("state") {
        target.query_pairs_mut().append_pair("state", &value);
    }
    Reply::redirect(target.as_str())
}

/// A page of the provider: the request is wrong, so the browser is not sent back.
fn fault(parameter: &str) -> Reply {
    let text = format!("<!doctype html><title>Wrong request</title><p>Wrong: {parameter}");
    Reply::text(400, "text/html", &text)
}
