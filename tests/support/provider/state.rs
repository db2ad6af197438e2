//! The provider's state, and the one place from which it responds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::authorization::Callback;
use super::grants::{Grants, User};
use super::keys::{Jwt, SigningKey};
use super::received::{Endpoint, Received};
use super::reply::Reply;
use super::{CLIENT_SECRET, authorization, introspection, token_endpoint};
use crate::support::upstream::SeenRequest;

type Change<T> = Arc<dyn Fn(&mut T) + Send + Sync>;

/// A change of responses, and for how many more; absent: for all.
struct Variation {
    remaining: Option<usize>,
    change: Change<Reply>,
}

/// What a test has chosen.
pub(super) struct Options {
    pub(super) user: User,
    pub(super) sid: Option<Option<String>>,
    pub(super) expires_in: u64,
    pub(super) rotates: bool,
    pub(super) authentication_age: i64,
    pub(super) client_keys: Option<Value>,
    pub(super) id_token: Option<Change<Jwt>>,
    pub(super) response_token: Option<Change<Jwt>>,
    pub(super) callback: Option<Change<Callback>>,
}

pub(super) struct State {
    pub(super) issuer: String,
    pub(super) options: Mutex<Options>,
    pub(super) grants: Mutex<Grants>,
    /// The first signs.
    pub(super) keys: Mutex<Vec<Arc<SigningKey>>>,
    pub(super) received: Mutex<Vec<Received>>,
    pub(super) latest_sid: Mutex<Option<String>>,
    variations: Mutex<HashMap<Endpoint, Variation>>,
    /// Opaque tokens that are active, with what the introspection endpoint says of them.
    pub(super) active_tokens: Mutex<HashMap<String, Value>>,
    generated_keys: AtomicUsize,
}

impl State {
    pub(super) fn new(issuer: &str) -> State {
        let options = Options {
            user: User::new("ann"),
            sid: None,
            expires_in: 300,
            rotates: true,
            authentication_age: 0,
            client_keys: None,
            id_token: None,
            response_token: None,
            callback: None,
        };
        State {
            issuer: issuer.to_owned(),
            options: Mutex::new(options),
            grants: Mutex::default(),
            keys: Mutex::new(vec![SigningKey::generate("ES256", "key-0")]),
            received: Mutex::default(),
            latest_sid: Mutex::default(),
            variations: Mutex::default(),
            active_tokens: Mutex::default(),
            generated_keys: AtomicUsize::new(1),
        }
    }

    pub(super) fn vary(&self, endpoint: Endpoint, remaining: Option<usize>, change: Change<Reply>) {
        let variation = Variation { remaining, change };
        self.variations.lock().insert(endpoint, variation);
    }

    pub(super) fn behave(&self) {
        self.variations.lock().clear();
        let mut options = self.options.lock();
        options.id_token = None;
        options.response_token = None;
        options.callback = None;
    }

    pub(super) fn new_key(&self, algorithm: &str) -> Arc<SigningKey> {
        let number = self.generated_keys.fetch_add(1, Ordering::SeqCst);
        SigningKey::generate(algorithm, &format!("key-{number}"))
    }

    pub(super) fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.keys.lock()[0])
    }

    pub(super) fn revoke_grants(&self) {
        let mut grants = self.grants.lock();
        grants.codes.clear();
        grants.access_tokens.clear();
        grants.refresh_tokens.clear();
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets = self.grants.lock().secrets.clone();
        secrets.push(CLIENT_SECRET.to_owned());
        let names = [
            "state",
            "nonce",
            "code_verifier",
            "client_assertion",
            "id_token_hint",
        ];
        for seen in self.received.lock().iter() {
            let parameters = seen.parameters().into_iter();
            let secret = parameters.filter(|(name, _)| names.contains(&name.as_str()));
            secrets.extend(secret.map(|(_, value)| value));
        }
        secrets.sort();
        secrets.dedup();
        secrets
    }

    pub(super) fn respond(&self, seen: SeenRequest) -> Reply {
        let received = Received::from_request(seen);
        self.received.lock().push(received.clone());
        let mut reply = self.honest_reply(&received);
        let change = {
            let mut variations = self.variations.lock();
            let variation = variations.get_mut(&received.endpoint);
            let change = variation.as_ref().map(|found| Arc::clone(&found.change));
            if let Some(remaining) = variation.and_then(|found| found.remaining.as_mut()) {
                *remaining -= 1;
                if *remaining == 0 {
                    variations.remove(&received.endpoint);
                }
            }
            change
        };
        if let Some(change) = change {
            change(&mut reply);
        }
        reply
    }

    fn honest_reply(&self, request: &Received) -> Reply {
        match request.endpoint {
            Endpoint::Discovery => Reply::json(200, &self.metadata()),
            Endpoint::Keys => {
                let keys: Vec<_> = self.keys.lock().iter().map(|key| key.jwk()).collect();
                Reply::json(200, &json!({ "keys": keys }))
            }
            Endpoint::Authorization => authorization::respond(self, request),
            Endpoint::Par => authorization::push(self, request),
            Endpoint::Token => token_endpoint::respond(self, request),
            Endpoint::Revocation => token_endpoint::revoke(self, request),
            Endpoint::Introspection => introspection::respond(self, request),
            Endpoint::EndSession => authorization::end_session(request),
            Endpoint::Userinfo | Endpoint::Emails | Endpoint::Organizations | Endpoint::Teams => {
                token_endpoint::user_resource(self, request)
            }
            Endpoint::Unknown => Reply::json(404, &json!({ "error": "not_found" })),
        }
    }

    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        let algorithms: Vec<_> = self
            .keys
            .lock()
            .iter()
            .map(|key| key.algorithm.clone())
            .collect();
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/keys"),
            "pushed_authorization_request_endpoint": at("/par"),
            "end_session_endpoint": at("/end-session"),
            "revocation_endpoint": at("/revoke"),
            "introspection_endpoint": at("/introspect"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "form_post", "jwt", "query.jwt"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
            "authorization_signing_alg_values_supported": algorithms,
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "token_endpoint_auth_signing_alg_values_supported": ["ES256", "RS256", "PS256", "EdDSA"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "email", "profile", "offline_access"],
            "authorization_response_iss_parameter_supported": true,
            "backchannel_logout_supported": true,
            "backchannel_logout_session_supported": true,
        })
    }
}
