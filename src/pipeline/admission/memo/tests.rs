//! With and without the memo, every request is decided alike, whatever has changed before.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Version};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::session::{ClientBinding, EndReason, OnSessionLimit, Session, SessionToken};
use crate::auth::token::fixtures::{self, NOW};
use crate::auth::token::{Algorithm, KeySource};
use crate::config;
use crate::database::Database;
use crate::events::Events;
use crate::limits::Decision;
use crate::pipeline::admission::Permit;
use crate::pipeline::facts::{RequestHead, client_origin};
use crate::pipeline::fields::{Fields, tests::list};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::sessions::Sessions;
use crate::settings::{self, ForwardedBy};
use crate::store::{CacheKey, SessionIdentity, Store, user_hash};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;

/// When the token of the other issuer was issued, in seconds.
const LONG_AGO: u64 = 1_700_000_000;
/// The key of its user.
const FOREIGN_USER: &str = "https://idp.example\0idp:u1";
/// Requests that the memo has decided, in all cases.
static RECALLED: AtomicUsize = AtomicUsize::new(0);

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
";

/// What may happen between two requests.
#[derive(Debug, Clone)]
enum Change {
    /// The session ends.
    End(ChangeOrigin),
    /// The user gains or loses the role `staff`.
    Roles(ChangeOrigin, bool),
    /// The token with this key is revoked.
    Blacklist(ChangeOrigin, &'static str),
    /// All tokens of the foreign user are revoked.
    CutOff(ChangeOrigin),
    GlobalCutOff,
    /// An invalidation arrives.
    Invalidate(usize),
    Flush,
    /// The connection for invalidations is lost, or confirmed.
    Lose,
    Confirm,
    /// The gateway's clock moves, in seconds.
    Clock(u64),
    Reload(Configuration),
}

/// Where a change is made.
#[derive(Debug, Clone, Copy)]
enum ChangeOrigin {
    Here,
    /// On another gateway: its invalidation has not arrived yet.
    Elsewhere,
}

#[derive(Debug, Clone, Copy)]
struct Configuration {
    is_idle_at_once: bool,
    has_other_keys: bool,
    binds_address: bool,
}

fn change() -> impl Strategy<Value = Change> {
    let configuration = (any::<bool>(), any::<bool>(), any::<bool>());
    let configuration = configuration.prop_map(|(idle, keys, binds)| Configuration {
        is_idle_at_once: idle,
        has_other_keys: keys,
        binds_address: binds,
    });
    let place = || prop_oneof![Just(ChangeOrigin::Here), Just(ChangeOrigin::Elsewhere)];
    let key = prop_oneof![Just("t1"), Just("foreign")];
    prop_oneof![
        1 => place().prop_map(Change::End),
        3 => (place(), any::<bool>()).prop_map(|(place, staff)| Change::Roles(place, staff)),
        1 => (place(), key).prop_map(|(place, key)| Change::Blacklist(place, key)),
        1 => place().prop_map(Change::CutOff),
        1 => Just(Change::GlobalCutOff),
        3 => (0..4_usize).prop_map(Change::Invalidate),
        2 => Just(Change::Flush),
        1 => Just(Change::Lose),
        3 => Just(Change::Confirm),
        1 => (0..70_u64).prop_map(Change::Clock),
        1 => configuration.prop_map(Change::Reload),
    ]
}

/// A gateway with one user's session, a token of it, and a token of another issuer.
struct Fixture {
    store: Store,
    elsewhere: Store,
    sessions: Sessions,
    metrics: Arc<Metrics>,
    events: Events,
    snapshot: Snapshot,
    memo: Memo,
    id: SessionId,
    credentials: [(&'static str, String); 3],
    now: Millis,
    _folder: tempfile::TempDir,
}

fn session(id: SessionId) -> Session {
    let now = crate::clock::unix_millis();
    let record = json!({
        "id": id, "user": "u1", "email": "ann@example.com", "ip": "127.0.0.1",
        "created_at": now, "expires_at": now + 86_400_000,
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
    async fn new() -> Fixture {
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
        let session = session(id);
        let created = store.create_session(&session, None, 5, limit, None);
        created.await.unwrap();
        let snapshot = snapshot(configuration, &metrics);
        let cookie = format!(
            "{}={}",
            snapshot.settings.sessions.cookie.name,
            token.expose()
        );
        Fixture {
            elsewhere: store.of_another_gateway(settings),
            sessions: Sessions::new(store.clone(), settings, database, shared, false),
            events: Events::new(store.clone()),
            snapshot,
            memo: Memo::default(),
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

    async fn apply(&mut self, change: &Change) {
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

    fn confirm(&self) {
        let cache = self.store.near_cache();
        cache.confirm_up_to(Instant::now(), Duration::from_secs(3600));
    }

    /// Decides a request with this memo.
    async fn admit(
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
            events: &self.events,
            memo,
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
            listener: 0,
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
    async fn check(&self, credential: usize, route: usize, address: u8) {
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

/// The parts of a decision that have to agree.
struct Outcome {
    verdict: Result<(String, Vec<String>, Option<SessionId>, CredentialKind), Refused>,
    limits: Vec<(Arc<str>, u64)>,
}

/// The refusal, its reason, whether the cookie is cleared, and the user.
type Refused = (Refusal, Option<Reason>, bool, Option<String>);

impl Outcome {
    fn of(decided: Result<Permit, Rejection>) -> Outcome {
        let (verdict, decisions) = match decided {
            Ok(permit) => {
                let identity = permit.identity.unwrap();
                let session = identity.session().map(|session| session.id);
                let verdict = (
                    identity.user().to_owned(),
                    identity.roles().to_vec(),
                    session,
                    identity.credential_kind,
                );
                (Ok(verdict), permit.decisions)
            }
            Err(refused) => {
                // As the log line names it.
                let user = refused.details.and_then(|details| details.user);
                let user = user.or_else(|| refused.caller.map(|it| it.user().to_owned()));
                let why = (refused.refusal, refused.reason, refused.clear_cookie, user);
                (Err(why), refused.decisions)
            }
        };
        let left = |it: &Decision| (Arc::clone(&it.limit.name), it.remaining);
        let limits = decisions.iter().map(left).collect();
        Outcome { verdict, limits }
    }
}

#[test]
fn memo_and_caches_decide_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let request = (0..3_usize, 0..4_usize, 1..3_u8);
    let step = (prop::option::weighted(0.5, change()), request);
    let steps = prop::collection::vec(step, 1..25);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(192)
    });
    let outcome = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let mut fixture = Fixture::new().await;
            fixture.confirm();
            for (change, (credential, route, address)) in steps {
                // One request that is looked up, one that is added, one that is recalled.
                for _ in 0..3 {
                    fixture.check(credential, route, address).await;
                }
                if let Some(change) = &change {
                    fixture.apply(change).await;
                }
                for credential in 0..3 {
                    for route in 0..4 {
                        fixture.check(credential, route, address).await;
                    }
                }
            }
        });
        Ok(())
    });
    outcome.unwrap();
    assert!(RECALLED.load(Ordering::Relaxed) > 1_000);
}
