//! Endpoints that clients call: tokens, their revocation, and the user's data.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::grants::Grant;
use super::keys::Jwt;
use super::received::Received;
use super::reply::Reply;
use super::state::State;
use super::{CLIENT_ID, CLIENT_SECRET};
use crate::support::tokens;

pub(super) fn refusal(status: u16, code: &str, description: &str) -> Reply {
    let body = json!({ "error": code, "error_description": description });
    Reply::json(status, &body)
}

pub(super) fn respond(state: &State, request: &Received) -> Reply {
    if request.method != "POST" {
        return refusal(405, "invalid_request", "not a POST");
    }
    if let Some(fault) = client_fault(state, request) {
        return refusal(401, "invalid_client", fault);
    }
    let grant = match request.parameter("grant_type").as_deref() {
        Some("authorization_code") => redeem(state, request),
        Some("refresh_token") => refresh(state, request),
        _ => return refusal(400, "unsupported_grant_type", "another"),
    };
    match grant {
        Ok((grant, refresh_token)) => issue(state, request, &grant, refresh_token),
        // GitHub reports errors with 200.
        Err(_) if request.path != "/token" => {
            Reply::json(200, &json!({ "error": "bad_verification_code" }))
        }
        Err(fault) => refusal(400, "invalid_grant", fault),
    }
}

/// Redeems a code, once.
fn redeem(state: &State, request: &Received) -> Result<(Grant, Option<String>), &'static str> {
    let sent = |name: &str| request.parameter(name).unwrap_or_default();
    let mut grants = state.grants.lock();
    let grant = grants.codes.remove(&sent("code")).ok_or("code")?;
    if grant.requested("redirect_uri") != Some(&sent("redirect_uri")) {
        return Err("redirect_uri");
    }
    if !grant.is_verified_by(&sent("code_verifier")) {
        return Err("code_verifier");
    }
    let refresh_token = grants.secret();
    grants
        .refresh_tokens
        .insert(refresh_token.clone(), grant.clone());
    Ok((grant, Some(refresh_token)))
}

/// Exchanges a refresh token, which is good once where it is rotated.
fn refresh(state: &State, request: &Received) -> Result<(Grant, Option<String>), &'static str> {
    let (rotates, user) = {
        let options = state.options.lock();
        (options.rotates, options.user.clone())
    };
    let presented = request.parameter("refresh_token").unwrap_or_default();
    let mut grants = state.grants.lock();
    let known = grants.refresh_tokens.get(&presented).cloned();
    let mut grant = known.ok_or("refresh_token")?;
    // The user's present claims.
    if user.sub == grant.user.sub {
        grant.user = user;
    }
    if !rotates {
        return Ok((grant, None));
    }
    grants.refresh_tokens.remove(&presented);
    let refresh_token = grants.secret();
    grants
        .refresh_tokens
        .insert(refresh_token.clone(), grant.clone());
    Ok((grant, Some(refresh_token)))
}

fn issue(state: &State, request: &Received, grant: &Grant, refresh_token: Option<String>) -> Reply {
    let access_token = {
        let mut grants = state.grants.lock();
        let token = grants.secret();
        grants.access_tokens.insert(token.clone(), grant.clone());
        token
    };
    let mut body = json!({
        "access_token": access_token, "token_type": "Bearer",
        "expires_in": state.options.lock().expires_in,
    });
    if let Some(scope) = grant.requested("scope") {
        body["scope"] = json!(scope);
    }
    if request.path == "/token" {
        body["id_token"] = json!(id_token(state, request, grant, &access_token));
        if let Some(token) = refresh_token {
            body["refresh_token"] = json!(token);
        }
    }
    Reply::json(200, &body)
}

fn id_token(state: &State, request: &Received, grant: &Grant, access_token: &str) -> String {
    let now = tokens::now();
    let mut claims = json!({
        "iss": state.issuer, "aud": CLIENT_ID, "sub": grant.user.sub,
        "iat": now, "exp": now + 300, "auth_time": grant.authenticated_at,
        "amr": ["pwd"],
    });
    let key = state.key();
    // The hash is the one of the signature: only SHA-256 where it is checked here.
    if matches!(&*key.algorithm, "RS256" | "PS256" | "ES256") {
        let hash = Sha256::digest(access_token);
        claims["at_hash"] = json!(URL_SAFE_NO_PAD.encode(&hash[..16]));
    }
    if let Some(sid) = &grant.sid {
        claims["sid"] = json!(sid);
    }
    if let Some(requested) = grant.requested("acr_values") {
        claims["acr"] = json!(requested.split(' ').next());
    }
    let is_first = request.parameter("grant_type").as_deref() == Some("authorization_code");
    if let Some(nonce) = grant.requested("nonce").filter(|_| is_first) {
        claims["nonce"] = json!(nonce);
    }
    let own = grant.user.claims.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(own);
    let mut token = Jwt::new(&key, claims);
    let change = state.options.lock().id_token.clone();
    if let Some(change) = change {
        change(&mut token);
    }
    let token = token.encode();
    state.grants.lock().secrets.push(token.clone());
    token
}

/// What is wrong with the authentication of a client.
pub(super) fn client_fault(state: &State, request: &Received) -> Option<&'static str> {
    if let Some(assertion) = request.parameter("client_assertion") {
        return assertion_fault(state, request, &assertion);
    }
    let (id, secret) = match request.header("authorization") {
        Some(header) => match basic_credentials(header) {
            Some(credentials) => credentials,
            None => return Some("another scheme"),
        },
        None => (
            request.parameter("client_id").unwrap_or_default(),
            request.parameter("client_secret").unwrap_or_default(),
        ),
    };
    if id != CLIENT_ID {
        return Some("another client");
    }
    // A public client has no secret.
    (secret != CLIENT_SECRET && !secret.is_empty()).then_some("another secret")
}

/// ID and secret, form-encoded before Basic (RFC 6749, section 2.3.1).
fn basic_credentials(header: &str) -> Option<(String, String)> {
    let encoded = header.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |text: &str| {
        let mut pairs = url::form_urlencoded::parse(text.as_bytes());
        pairs.next().map(|(name, _)| name.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}

fn assertion_fault(state: &State, request: &Received, assertion: &str) -> Option<&'static str> {
    let kind = request.parameter("client_assertion_type");
    if kind.as_deref() != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
        return Some("client_assertion_type");
    }
    let claims = tokens::claims(assertion);
    let keys = state.options.lock().client_keys.clone();
    if let Some(keys) = keys {
        let Ok(header) = jsonwebtoken::decode_header(assertion) else {
            return Some("header");
        };
        let keys: JwkSet = serde_json::from_value(keys).unwrap();
        let Some(key) = header.kid.as_deref().and_then(|kid| keys.find(kid)) else {
            return Some("kid");
        };
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&[&state.issuer]);
        let key = DecodingKey::from_jwk(key).unwrap();
        if jsonwebtoken::decode::<Value>(assertion, &key, &rules).is_err() {
            return Some("signature");
        }
    }
    let id = claims["jti"].as_str().unwrap_or_default();
    let lifetime = claims["exp"].as_i64().unwrap_or_default() - tokens::now();
    if claims["iss"] != json!(CLIENT_ID) || claims["sub"] != claims["iss"] {
        return Some("iss or sub");
    }
    if claims["aud"] != json!(state.issuer) {
        return Some("aud");
    }
    if !(1..=60).contains(&lifetime) {
        return Some("exp");
    }
    let is_new = state.grants.lock().used_ids.insert(id.to_owned());
    (id.len() < 16 || !is_new).then_some("jti")
}

/// Revokes a token (RFC 7009).
pub(super) fn revoke(state: &State, request: &Received) -> Reply {
    if let Some(fault) = client_fault(state, request) {
        return refusal(401, "invalid_client", fault);
    }
    let token = request.parameter("token").unwrap_or_default();
    let mut grants = state.grants.lock();
    grants.refresh_tokens.remove(&token);
    grants.access_tokens.remove(&token);
    Reply::text(200, "text/plain", "")
}

/// Userinfo, and the resources of an API like GitHub's.
pub(super) fn user_resource(state: &State, request: &Received) -> Reply {
    let header = request.header("authorization").unwrap_or_default();
    let token = header.strip_prefix("Bearer ").unwrap_or_default();
    let Some(grant) = state.grants.lock().access_tokens.get(token).cloned() else {
        let mut reply = refusal(401, "invalid_token", "unknown");
        reply.set_header("WWW-Authenticate", "Bearer error=\"invalid_token\"");
        return reply;
    };
    let user = &grant.user;
    let login = &user.sub;
    let body = match &*request.path {
        "/userinfo" => {
            let mut body = json!({ "sub": user.sub });
            for claims in [&user.claims, &user.userinfo] {
                let claims = claims.as_object().unwrap().clone();
                body.as_object_mut().unwrap().extend(claims);
            }
            body
        }
        // A name may pass to another user; the number does not.
        "/user" => {
            json!({ "id": user.claims.get("id").unwrap_or(&json!(1_000_001)), "login": login, "name": login, "email": null })
        }
        "/user/emails" => json!([
            { "email": format!("{login}@old.example"), "primary": false, "verified": true },
            { "email": format!("{login}@example.com"), "primary": true, "verified": true },
        ]),
        "/user/orgs" => json!([{ "login": "ACME" }, { "login": "other" }]),
        _ => json!([{ "slug": "ops", "organization": { "login": "ACME" } }]),
    };
    Reply::json(200, &body)
}
