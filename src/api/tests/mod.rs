//! Endpoint tests: the real router over the memory store and a database file.

#![expect(clippy::unwrap_used, reason = "tests")]

mod admin;
mod changes;
mod endpoints;
mod fixtures;
mod operations;
mod profile;
mod races;
mod refresh;
mod sessions;
mod sign_in;
mod sign_out;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine;
use fixtures::{PASSWORDS, reloadable};
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::caller::presented_credential;
use super::{ApiState, Caller, ResponseInfo, router};
use crate::auth::credential::PresentedCredential;
use crate::auth::session::{SessionId, SessionStatus};
use crate::auth::token::{Claims, TokenSource};
use crate::database::Database;
use crate::events::{Events, RecordedEvent};
use crate::identity::Accounts;
use crate::pipeline::admission::{CredentialKind, Identity, Principal};
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::{CredentialUse, credential_use};
use crate::sessions::Sessions;
use crate::settings::{self, Reloadable};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::upstream::fixtures::no_probe;

const EMAIL: &str = "ann@example.com";
const PASSWORD: &str = "correct horse battery";
const HOST: &str = "gw.example";
const ORIGIN: (&str, &str) = ("origin", "http://gw.example");

/// A gateway's API state, and the fixtures that must outlive it.
struct TestGateway {
    state: ApiState,
    snapshot: Arc<Snapshot>,
    router: Router,
    database: Database,
    ip: &'static str,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

/// A response that has been read.
struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
    rejection: Option<Rejection>,
    info: ResponseInfo,
}

impl TestResponse {
    /// The member of `data` at a JSON pointer.
    fn at(&self, pointer: &str) -> &Value {
        self.body
            .pointer(&format!("/data{pointer}"))
            .unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> String {
        self.at(pointer).as_str().unwrap_or_default().to_owned()
    }

    /// The refusal code, if the request was rejected; a rejection has no body of its own.
    fn code(&self) -> &'static str {
        let Some(refused) = &self.rejection else {
            return "";
        };
        assert_eq!(self.status, refused.refusal.status());
        assert_eq!(self.body, Value::Null);
        refused.refusal.code()
    }

    /// The `Cookie` header that a browser would send next.
    fn cookie(&self) -> String {
        let set = self.headers.get("set-cookie").unwrap().to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

async fn gateway() -> TestGateway {
    gateway_with(|_| {}).await
}

async fn gateway_with(adjust: impl FnOnce(&mut Reloadable)) -> TestGateway {
    let folder = tempfile::tempdir().unwrap();
    let database = settings::DatabaseSettings::Sqlite(folder.path().join("people.db"));
    let database = Database::open(&database).await.unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let store_settings = settings::Store {
        engine: settings::Engine::Memory,
        key_prefix: "t:".to_owned(),
        revocation_replicas: 0,
        timeout: Duration::from_secs(1),
        sessions_on_outage: settings::SessionsOnOutage::Deny,
        cached_for: Duration::from_secs(1),
        limits_on_outage: crate::limits::OnOutage::Local,
    };
    let store = Store::open(&store_settings, Arc::clone(&metrics));
    let events = Events::new(store.clone());
    let sessions = Sessions::new(
        store.clone(),
        &store_settings,
        database.clone(),
        Arc::clone(&metrics),
        false,
    );
    let accounts = Accounts::new(
        database.clone(),
        sessions.clone(),
        store.clone(),
        Arc::clone(&metrics),
        events.clone(),
    )
    .unwrap();
    let mut settings = reloadable();
    adjust(&mut settings);
    let snapshot = Arc::new(Snapshot::start(settings, None, &no_probe(), &metrics).await);
    let state = ApiState {
        count_open_streams: Arc::new(|_| 0),
        accounts,
        sessions,
        store,
        events,
    };
    TestGateway {
        router: router(state.clone()),
        database,
        state,
        snapshot,
        ip: "192.0.2.1",
        metrics,
        _folder: folder,
    }
}

impl TestGateway {
    /// The same gateway, called from another address.
    fn from(&self, ip: &'static str) -> TestGateway {
        TestGateway {
            state: self.state.clone(),
            snapshot: Arc::clone(&self.snapshot),
            router: self.router.clone(),
            database: self.database.clone(),
            ip,
            metrics: Arc::clone(&self.metrics),
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TestResponse {
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

    /// Sends a request as the proxy does.
    async fn send(&self, mut request: Request<Body>) -> TestResponse {
        let used = credential_use(request.method(), request.uri().path());
        let caller = if used != CredentialUse::Ignored {
            Some(self.authenticate(request.headers()).await)
        } else {
            None
        };
        let extensions = request.extensions_mut();
        extensions.insert(Arc::clone(&self.snapshot));
        extensions.insert(Client {
            ip: self.ip.parse().unwrap(),
            https: false,
            host: HOST.to_owned(),
        });
        if let Some(caller) = caller {
            extensions.insert(Caller(caller));
        }
        read_response(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> TestResponse {
        self.call("POST", path, &[], &body.to_string()).await
    }

    async fn register(&self) -> TestResponse {
        let body = serde_json::json!({"email": EMAIL, "password": PASSWORD, "username": "Ann"});
        let response = self.post("/auth/register", &body).await;
        assert_eq!(
            response.status,
            StatusCode::CREATED,
            "{:?}",
            response.rejection
        );
        response
    }

    async fn login(&self, login: &str, password: &str) -> TestResponse {
        let body = serde_json::json!({"email": login, "password": password});
        self.post("/auth/login", &body).await
    }

    /// Authenticates as admission does, without signatures and limits.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Identity>, Rejection> {
        let settings = &self.snapshot.settings;
        let (id, token, presented) = match presented_credential(headers, settings) {
            PresentedCredential::Absent => return Ok(None),
            PresentedCredential::Cookie(token) => (token.id(), None, CredentialKind::Cookie),
            PresentedCredential::Session(token) => {
                (token.id(), None, CredentialKind::SessionHeader)
            }
            PresentedCredential::Bearer(token) => {
                let claims = claims(token);
                (
                    claims.session.unwrap(),
                    Some(claims),
                    CredentialKind::Bearer,
                )
            }
            _ => return Err(Refusal::TokenInvalid.into()),
        };
        let entry = self.state.store.session(id).await.unwrap();
        let entry = entry.ok_or(Refusal::SessionNotFound)?;
        let now = self.state.store.now().await.unwrap();
        match entry.session.status(
            entry.activity.last_access,
            settings.sessions.idle_timeout,
            now,
        ) {
            SessionStatus::Revoked => return Err(Refusal::SessionRevoked.into()),
            SessionStatus::Expired => return Err(Refusal::SessionExpired.into()),
            SessionStatus::Active => {}
        }
        Ok(Some(Identity::new(
            Principal::Session(Arc::new(entry.session)),
            token.map(Arc::new),
            presented,
            0,
        )))
    }

    /// Whether a session is active.
    async fn is_session_active(&self, id: &str) -> bool {
        let id = SessionId::parse(id).unwrap();
        let entry = self.state.store.session(id).await.unwrap();
        entry.is_some_and(|entry| entry.session.ended.is_none())
    }

    /// Number of recorded events of one kind.
    async fn count_events(&self, kind: &str) -> usize {
        self.state.events.flush();
        let page = self.state.events.page(Some(kind), None, 1000).await;
        let events = page.unwrap().events.into_iter();
        let count = |event: RecordedEvent| event.event.get("count").map_or(Some(1), Value::as_u64);
        events.map(|event| count(event).unwrap() as usize).sum()
    }
}

async fn read_response(response: axum::response::Response) -> TestResponse {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    TestResponse {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        rejection: parts.extensions.get().cloned(),
        info: parts.extensions.get().cloned().unwrap_or_default(),
    }
}

/// The claims of an access token, unverified.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).unwrap();
    let decode = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims: Value = serde_json::from_slice(&decode.decode(payload).unwrap()).unwrap();
    let text = |name: &str| claims.get(name).unwrap().as_str().unwrap().to_owned();
    Claims {
        source: TokenSource::Own,
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
