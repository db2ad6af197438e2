//! A gateway with sessions, tokens and routes, for decisions with and without the memo.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, Version};
use serde_json::json;

use super::super::*;
use super::{Change, ChangeOrigin, Configuration, Outcome, RECALLED, SignIn};
use crate::auth::session::{ClientBinding, EndReason, OnSessionLimit, Session, SessionToken};
use crate::auth::token::fixtures::{self, NOW};
use crate::auth::token::{Algorithm, KeySource};
use crate::config;
use crate::database::Database;
use crate::events::Events;
use crate::identity::Accounts;
use crate::identity::oidc::ProviderTokens;
use crate::pipeline::admission::Permit;
use crate::pipeline::facts::{RequestHead, client_origin};
use crate::pipeline::fields::{Fields, tests::list};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Rejection;
use crate::sessions::Sessions;
use crate::settings::{self, ForwardedBy, ListenerId};
use crate::store::{CacheKey, SessionIdentity, Store, user_hash};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;

/// When the token of the other issuer was issued, in seconds.
const LONG_AGO: u64 = 1_700_000_000;
/// The key of its user.
const FOREIGN_USER: &str = "https://idp.example\0idp:u1";
/// Number of routes.
pub(super) const ROUTE_COUNT: usize = 7;

const ROUTES: &str = "
listeners: [{bind: '127.0.0.1:1'}]
database: {url: 'sqlite:people.db'}
tokens: {signing: {algorithm: HS256, secret: '0123456789abcdef0123456789abcdef'}}
upstreams: {behind: {servers: ['http://127.0.0.1:2']}}
limits:
  by-user: {algorithm: sliding_window, window: 1h, limit: 1000000, key: user}
  few: {algorithm: sliding_window, window: 1h, limit: 8, key: [user, route]}
  by-address: {algorithm: sliding_window, window: 1h, limit: 1000000, key: [session, ip]}
routes:
  - {name: known, match: {prefix: /known}, upstream: behind}
  - {name: limited, match: {prefix: /limited}, limits: [by-user, by-address], upstream: behind}
  - {name: tight, match: {prefix: /tight}, limits: [few], upstream: behind}
  - {name: staff, match: {prefix: /staff}, require: {roles: [staff]}, upstream: behind}
  - {name: strong, match: {prefix: /strong}, require: {acr: [mfa]}, limits: [by-user], upstream: behind}
  - {name: corp, match: {prefix: /corp}, require: {providers: [corp]}, upstream: behind}
  - {name: recent, match: {prefix: /recent}, require: {max_auth_age: 1h}, limits: [few], upstream: behind}
identity:
  providers:
    corp: {issuer: 'https://id.example.com', client_id: portcullis, client_auth: none, allow: anyone}
";

/// A gateway with one user's session, a token of it, and a token of another issuer.
pub(super) struct Fixture {
    store: Store,
    elsewhere: Store,
    sessions: Sessions,
    metrics: Arc<Metrics>,
    events: Events,
    snapshot: Snapshot,
    pub(super) memo: Memo,
    provider_tokens: ProviderTokens,
    id: SessionId,
    credentials: [(&'static str, String); 3],
    now: Millis,
    _folder: tempfile::TempDir,
}

fn session(id: SessionId, sign_in: SignIn) -> Session {
    let now = crate::clock::unix_millis();
    let provider = match sign_in {
        SignIn::Password => None,
        SignIn::Provider { is_strong, before } => Some(json!({
            "provider": "corp", "subject": "1", "authenticated_at": now - before * 1000,
            "acr": is_strong.then_some("mfa"),
        })),
    };
    let record = json!({
        "id": id, "user": "u1", "email": "ann@example.com", "ip": "127.0.0.1",
        "created_at": now, "expires_at": now + 86_400_000, "provider": provider,
    });
    serde_json::from_value(record).unwrap()
}

fn snapshot(configuration: Configuration, metrics: &Metrics) -> Snapshot {
    let parsed = config::parse(ROUTES, "portcullis.yaml".as_ref());
    let mut settings = parsed.unwrap().reloadable;
    let foreign = match configuration.has_other_keys {
        true => fixtures::private(Algorithm::ES256, "b"),
        false => fixtures::private(Algorithm::EdDSA, "a"),
    };
    let trusted = fixtures::trusted(KeySource::File(vec![foreign].into()));
    let mut tokens = fixtures::tokens(vec![trusted]);
    if configuration.has_other_keys {
        tokens.verifying = vec![fixtures::secret(9)];
    }
    settings.tokens = Arc::new(tokens);
    settings.sessions.idle_timeout = configuration.is_idle_at_once.then_some(Duration::ZERO);
    if configuration.binds_address {
        settings.sessions.bind_ip = ClientBinding::Deny;
    }
    Snapshot::offline(settings, metrics)
}

impl Fixture {
    pub(super) async fn new(sign_in: SignIn) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let database = settings::DatabaseSettings::Sqlite(folder.path().join("people.db"));
        let database = Database::open(&database).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let settings = config::parse(ROUTES, "portcullis.yaml".as_ref()).unwrap();
        let settings = &settings.boot.store;
        let store = Store::open(settings, Arc::clone(&metrics));
        let shared = Arc::clone(&metrics);
        let token = SessionToken::random();
        let id = token.id();
        let own = fixtures::with_member(fixtures::our_claims(), "sid", json!(id));
        let foreign = fixtures::with_member(fixtures::foreign_claims(), "iat", json!(LONG_AGO));
        let foreign = fixtures::with_member(foreign, "jti", json!("foreign"));
        let foreign = fixtures::sign(&fixtures::private(Algorithm::EdDSA, "a"), &foreign);
        let own = fixtures::sign(&fixtures::secret(1), &own);
        let configuration = Configuration {
            is_idle_at_once: false,
            has_other_keys: false,
            binds_address: false,
        };
        let limit = OnSessionLimit::EvictOldest;
        let session = session(id, sign_in);
        let created = store.create_session(&session, None, 5, limit, None);
        created.await.unwrap();
        let snapshot = snapshot(configuration, &metrics);
        let (sessions, events, provider_tokens) = services(&store, settings, database, shared);
        let cookie = format!(
            "{}={}",
            snapshot.settings.sessions.cookie.name,
            token.expose()
        );
        Fixture {
            elsewhere: store.of_another_gateway(settings),
            sessions,
            events,
            snapshot,
            memo: Memo::default(),
            provider_tokens,
            id,
            credentials: [
                ("authorization", format!("Bearer {own}")),
                ("authorization", format!("Bearer {foreign}")),
                ("cookie", cookie),
            ],
            now: NOW,
            store,
            metrics,
            _folder: folder,
        }
    }

    pub(super) async fn apply(&mut self, change: &Change) {
        let store = |place| match place {
            ChangeOrigin::Here => &self.store,
            ChangeOrigin::Elsewhere => &self.elsewhere,
        };
        let cache = self.store.near_cache();
        match *change {
            Change::End(place) => {
                let revoked = store(place).revoke(self.id, EndReason::SignOut, None);
                revoked.await.unwrap();
            }
            Change::Roles(place, staff) => {
                let roles = ["staff".to_owned()];
                let identity = SessionIdentity {
                    version: u64::MAX,
                    email: "ann@example.com",
                    name: None,
                    roles: if staff { &roles } else { &[] },
                    scopes: &[],
                };
                let ids = [self.id];
                store(place).set_identity(&ids, identity).await.unwrap();
            }
            Change::Blacklist(place, key) => {
                let listed = store(place).blacklist(key, Duration::from_secs(3600));
                listed.await.unwrap();
            }
            Change::CutOff(place) => store(place).cut_off(FOREIGN_USER).await.unwrap(),
            Change::GlobalCutOff => self.store.set_global_cut_off(NOW / 1000),
            Change::Invalidate(item) => {
                let item = match item {
                    0 => CacheKey::Session(self.id),
                    1 => CacheKey::Token("t1".to_owned()),
                    2 => CacheKey::Token("foreign".to_owned()),
                    _ => CacheKey::User(user_hash(FOREIGN_USER)),
                };
                cache.invalidate(&item, 1);
            }
            Change::Flush => cache.invalidate_all(),
            Change::Lose => cache.suspend(),
            Change::Confirm => self.confirm(),
            Change::Clock(seconds) => self.now = NOW + seconds * 1000,
            Change::Reload(configuration) => {
                self.snapshot = snapshot(configuration, &self.metrics);
            }
        }
    }

    pub(super) fn confirm(&self) {
        let cache = self.store.near_cache();
        cache.confirm_up_to(Instant::now(), Duration::from_secs(3600));
    }

    /// Decides a request with this memo.
    pub(super) async fn admit(
        &self,
        memo: &Memo,
        credential: usize,
        route: usize,
        address: u8,
    ) -> Result<Permit, Rejection> {
        let admission = Admission {
            snapshot: &self.snapshot,
            store: &self.store,
            sessions: &self.sessions,
            metrics: &self.metrics,
            events: Some(&self.events),
            memo,
            provider_tokens: &self.provider_tokens,
            request_id: &RequestId::EMPTY,
        };
        let (name, value) = &self.credentials[credential];
        let list = list(&[(name, value)]);
        let fields = Fields::new(&list);
        let peer = [127, 0, 0, address].into();
        let by = ForwardedBy::XForwardedFor;
        let facts = RequestFacts {
            head: RequestHead {
                method: &Method::GET,
                version: Version::HTTP_11,
                path: "/",
                query: None,
                fields,
            },
            scheme: None,
            host: None,
            client: &client_origin::resolve(peer, false, &[], by, fields),
            certificate: None,
            listener: ListenerId::Public(0),
            now: self.now,
        };
        let route = &self.snapshot.settings.routes.routes()[route];
        let key = match name {
            &"authorization" => MemoKey::authorization(&facts).unwrap(),
            _ => MemoKey::Session(self.id, CredentialKind::Cookie),
        };
        if admission.recall(route, key, &facts).is_some() {
            RECALLED.fetch_add(1, Ordering::Relaxed);
        }
        admission.admit(route, &facts).await
    }

    /// Checks that the memo decides a request as no memo does.
    pub(super) async fn check(&self, credential: usize, route: usize, address: u8) {
        let with = self.admit(&self.memo, credential, route, address).await;
        let without = Memo::default();
        let without = self.admit(&without, credential, route, address).await;
        let (with, without) = (Outcome::of(with), Outcome::of(without));
        assert_eq!(with.verdict, without.verdict);
        // Both have charged the same counters: the second request finds one less, unless none is left.
        let charged = with
            .limits
            .iter()
            .map(|(name, left)| (name.clone(), left.saturating_sub(1)));
        assert!(charged.eq(without.limits));
    }
}

/// The services over a store.
fn services(
    store: &Store,
    settings: &settings::Store,
    database: Database,
    metrics: Arc<Metrics>,
) -> (Sessions, Events, ProviderTokens) {
    let events = Events::new(store.clone());
    let sessions = Sessions::new(
        store.clone(),
        settings,
        database.clone(),
        Arc::clone(&metrics),
        false,
    );
    let accounts = Accounts::new(
        database,
        sessions.clone(),
        store.clone(),
        metrics,
        events.clone(),
    );
    (sessions, events, ProviderTokens::new(accounts.unwrap()))
}
