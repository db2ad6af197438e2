//! The endpoints as a client meets them: the real router over the memory store and a database file.

#![expect(clippy::unwrap_used, reason = "tests")]

mod admin;
mod changes;
mod desk;
mod operations;
mod profile;
mod races;
mod refresh;
mod sessions;
mod sign_in;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use base64::Engine;
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::{Caller, Desk, Noted, Refused, needs_caller, router};
use crate::accounts::Accounts;
use crate::auth::credential;
use crate::auth::credential::Presented;
use crate::auth::session::{Binding, CookieRules, OnLimit, Rules, SameSite, SessionId, Status};
use crate::auth::token::{Claims, Key, Tokens};
use crate::directory::Directory;
use crate::events::{Events, Recorded};
use crate::pipeline::admission::{Client, Identity, PresentedBy, Whom};
use crate::refusal::Refusal;
use crate::sessions::durable::Durable;
use crate::settings::{self, HashCost, Live, PasswordRules, Rate};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

const PASSWORDS: PasswordRules = PasswordRules {
    min_length: 12,
    cost: HashCost {
        memory: 19 << 10,
        iterations: 2,
        parallelism: 1,
    },
};

const EMAIL: &str = "ann@example.com";
const PASSWORD: &str = "correct horse battery";
const HOST: &str = "gw.example";
const ORIGIN: (&str, &str) = ("origin", "http://gw.example");

/// A gateway's desk, with what has to outlive it.
struct Gateway {
    desk: Desk,
    router: Router,
    ip: &'static str,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

/// An answer, read.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    refused: Option<Refused>,
    noted: Noted,
}

impl Answer {
    /// The member of `data` at a JSON pointer.
    fn at(&self, pointer: &str) -> &Value {
        self.body
            .pointer(&format!("/data{pointer}"))
            .unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> String {
        self.at(pointer).as_str().unwrap_or_default().to_owned()
    }

    /// The code of the refusal, if it is one; a refusal has no body of its own.
    fn code(&self) -> &'static str {
        let Some(refused) = &self.refused else {
            return "";
        };
        assert_eq!(self.status, refused.refusal.status());
        assert_eq!(self.body, Value::Null);
        refused.refusal.code()
    }

    /// The `Cookie` that a browser would send next.
    fn cookie(&self) -> String {
        let set = self.headers.get("set-cookie").unwrap().to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

async fn gateway() -> Gateway {
    gateway_with(|_| {}).await
}

async fn gateway_with(adjust: impl FnOnce(&mut Live)) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let database = settings::Database::Sqlite(folder.path().join("people.db"));
    let directory = Directory::open(&database).await.unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Store::open(
        &settings::Store {
            engine: settings::Engine::Memory,
            key_prefix: "t:".to_owned(),
            revocation_replicas: 0,
            timeout: Duration::from_secs(1),
            sessions_on_outage: settings::SessionsOnOutage::Deny,
            cached_for: Duration::from_secs(1),
            limits_on_outage: crate::limits::OnOutage::Local,
        },
        Arc::clone(&metrics),
    );
    let events = Events::new(store.clone());
    let accounts = Accounts::new(
        directory.clone(),
        Durable::new(directory, false),
        store.clone(),
        Arc::clone(&metrics),
        events.clone(),
    )
    .unwrap();
    let mut live = live();
    adjust(&mut live);
    let desk = Desk {
        live_of: Arc::new(|_| 0),
        live: Arc::new(ArcSwap::from_pointee(live)),
        accounts,
        store,
        events,
    };
    Gateway {
        router: router(desk.clone()),
        desk,
        ip: "192.0.2.1",
        metrics,
        _folder: folder,
    }
}

fn tokens() -> Tokens {
    Tokens {
        issuer: "portcullis".to_owned(),
        audience: "portcullis".to_owned(),
        access_ttl: Duration::from_secs(900),
        refresh_ttl: Duration::from_secs(3600),
        refresh_grace: Duration::from_secs(30),
        leeway: Duration::from_secs(5),
        signing: Some(Key::hmac(None, &[7; 32]).unwrap()),
        verifying: Vec::new(),
        trusted: Vec::new(),
    }
}

fn live() -> Live {
    let rate = |limit| Rate {
        limit,
        window: Duration::from_secs(600),
    };
    Live {
        listeners: Vec::new(),
        admin_token: Some("0123456789abcdef".to_owned().into()),
        admin_names: Some(Vec::new()),
        tokens: Arc::new(tokens()),
        sessions: Rules {
            durable: false,
            ttl: Duration::from_secs(7200),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_per_user: 3,
            on_limit: OnLimit::EvictOldest,
            cookie: CookieRules {
                name: "__Host-portcullis".to_owned(),
                secure: true,
                same_site: SameSite::Lax,
                domain: None,
                path: "/".to_owned(),
            },
            bind_user_agent: Binding::Off,
            bind_ip: Binding::Off,
        },
        identity: settings::Identity {
            registration_open: true,
            passwords: PASSWORDS,
            attempts_per_address: rate(100),
            failures_per_account: rate(3),
            backend: None,
        },
        hsts: None,
        api: Some(settings::Api {
            prefix: "/api/v1".to_owned(),
            allowed_origins: vec!["https://app.example".to_owned()],
            users: true,
        }),
        identity_names: settings::IdentityNames::default(),
        limits: Vec::new(),
        upstreams: Vec::new(),
        routes: crate::routing::Table::default(),
        shutdown: settings::Shutdown {
            delay: Duration::ZERO,
            grace: Duration::ZERO,
        },
    }
}

impl Gateway {
    /// The same gateway, called from another address.
    fn from(&self, ip: &'static str) -> Gateway {
        Gateway {
            desk: self.desk.clone(),
            router: self.router.clone(),
            ip,
            metrics: Arc::clone(&self.metrics),
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }

    /// Sends a request as the wire does.
    async fn send(&self, mut request: Request<Body>) -> Answer {
        let ask = needs_caller(request.method(), request.uri().path());
        let caller = if ask {
            Some(self.authenticate(request.headers()).await)
        } else {
            None
        };
        let extensions = request.extensions_mut();
        extensions.insert(Client {
            ip: self.ip.parse().unwrap(),
            https: false,
            host: HOST.to_owned(),
        });
        if let Some(caller) = caller {
            extensions.insert(Caller(caller));
        }
        read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], &body.to_string()).await
    }

    async fn register(&self) -> Answer {
        let body = serde_json::json!({"email": EMAIL, "password": PASSWORD, "username": "Ann"});
        let answer = self.post("/auth/register", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.refused);
        answer
    }

    async fn login(&self, login: &str, password: &str) -> Answer {
        let body = serde_json::json!({"email": login, "password": password});
        self.post("/auth/login", &body).await
    }

    /// Does as admission does, without its signatures and limits.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Identity>, Refusal> {
        let live = self.desk.live.load_full();
        let (id, token, presented) = match credential::extract(headers, &live.sessions.cookie.name)
        {
            Presented::Absent => return Ok(None),
            Presented::Cookie(token) => (token.id(), None, PresentedBy::Cookie),
            Presented::Session(token) => (token.id(), None, PresentedBy::SessionHeader),
            Presented::Bearer(token) => {
                let claims = claims(token);
                (claims.session.unwrap(), Some(claims), PresentedBy::Bearer)
            }
            _ => return Err(Refusal::TokenInvalid),
        };
        let entry = self.desk.store.session(id).await.unwrap();
        let entry = entry.ok_or(Refusal::SessionNotFound)?;
        let now = self.desk.store.now().await.unwrap();
        match entry
            .session
            .status(entry.activity.last_access, live.sessions.idle_timeout, now)
        {
            Status::Revoked => return Err(Refusal::SessionRevoked),
            Status::Expired => return Err(Refusal::SessionExpired),
            Status::Active => {}
        }
        Ok(Some(Identity {
            whom: Whom::Session(Arc::new(entry.session)),
            token: token.map(Arc::new),
            presented,
            seen_at: 0,
        }))
    }

    /// Whether a session is alive.
    async fn lives(&self, id: &str) -> bool {
        let id = SessionId::parse(id).unwrap();
        let entry = self.desk.store.session(id).await.unwrap();
        entry.is_some_and(|entry| entry.session.ended.is_none())
    }

    /// How often an event is remembered.
    async fn events(&self, kind: &str) -> usize {
        self.desk.events.flush();
        let page = self.desk.events.page(Some(kind), None, 1000).await;
        let events = page.unwrap().events.into_iter();
        let count = |event: Recorded| event.event.get("count").map_or(Some(1), Value::as_u64);
        events.map(|event| count(event).unwrap() as usize).sum()
    }
}

async fn read(response: axum::response::Response) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        refused: parts.extensions.get().cloned(),
        noted: parts.extensions.get().cloned().unwrap_or_default(),
    }
}

/// What an access token says, taken at its word.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).unwrap();
    let decode = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims: Value = serde_json::from_slice(&decode.decode(payload).unwrap()).unwrap();
    let text = |name: &str| claims.get(name).unwrap().as_str().unwrap().to_owned();
    Claims {
        trusted: None,
        issuer: text("iss"),
        user: text("sub"),
        session: SessionId::parse(&text("sid")),
        blacklist_key: text("jti"),
        issued_at: None,
        expires_at: claims.get("exp").unwrap().as_u64().unwrap() * 1000,
        email: None,
        roles: Vec::new(),
        scopes: Vec::new(),
        certificate: None,
    }
}
