//! Sessions of providers that outlive the store.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use crate::auth::api_key::ApiKeyOwner;
use crate::auth::provider_logout::ProviderLogout;
use crate::auth::provider_sign_in::ProviderSignIn;
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::{
    ClientBinding, CookieRules, Device, EndReason, OnSessionLimit, SameSite, Session, SessionRules,
    SessionToken, no_data,
};
use crate::clock;
use crate::database::Database;
use crate::limits::OnOutage;
use crate::sessions::api_keys::{ApiKeyCreation, NewApiKey};
use crate::sessions::{ExternalIdentity, Sessions};
use crate::settings::{self, DatabaseSettings, Engine, SessionsOnOutage};
use crate::store::{InitialRefreshToken, SessionLookup, Store};
use crate::telemetry::metrics::Metrics;

struct Fixture {
    sessions: Sessions,
    database: Database,
    settings: settings::Store,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new(is_durable: bool) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.db");
        let database = Database::open(&DatabaseSettings::Sqlite(path))
            .await
            .unwrap();
        let settings = settings::Store {
            engine: Engine::Memory,
            key_prefix: "test:".to_owned(),
            timeout: Duration::from_secs(5),
            revocation_replicas: 0,
            sessions_on_outage: SessionsOnOutage::Deny,
            cached_for: Duration::from_secs(60),
            limits_on_outage: OnOutage::Local,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::open(&settings, Arc::clone(&metrics));
        let shared = Arc::clone(&metrics);
        let sessions = Sessions::new(store, &settings, database.clone(), shared, is_durable);
        Fixture {
            sessions,
            database,
            settings,
            metrics,
            _folder: folder,
        }
    }

    /// The same sessions over a store that has lost its data.
    fn after_store_loss(&self) -> Sessions {
        let store = Store::open(&self.settings, Arc::clone(&self.metrics));
        self.sessions.with_store(store)
    }

    async fn sign_in(&self, user: &str) -> Session {
        let session = provider_session(user);
        let grant = InitialRefreshToken {
            hash: [1; 32],
            until: session.expires_at,
        };
        let rules = rules();
        let created = self.sessions.create(&session, grant, &rules);
        created.await.unwrap();
        session
    }
}

fn rules() -> SessionRules {
    SessionRules {
        ttl: Duration::from_secs(3600),
        idle_timeout: None,
        max_per_user: 5,
        on_limit: OnSessionLimit::EvictOldest,
        durable: true,
        cookie: CookieRules {
            name: "portcullis".to_owned(),
            secure: false,
            same_site: SameSite::Lax,
            domain: None,
            path: "/".to_owned(),
        },
        bind_user_agent: ClientBinding::Off,
        bind_ip: ClientBinding::Off,
    }
}

fn provider_session(user: &str) -> Session {
    let now = clock::unix_millis();
    Session {
        id: SessionToken::random().id(),
        user: format!("corp:{user}"),
        email: String::new(),
        username: None,
        name: None,
        roles: [].into(),
        scopes: [].into(),
        created_at: now,
        expires_at: now + 3_600_000,
        ip: [192, 0, 2, 1].into(),
        user_agent: "".into(),
        device: Device::default(),
        ended: None,
        data: no_data(),
        revision: 0,
        api_key: None,
        provider: Some(Arc::new(ProviderSignIn {
            provider: "corp".into(),
            subject: user.to_owned(),
            sid: Some("one".to_owned()),
            authenticated_at: now,
            acr: None,
            amr: [].into(),
        })),
    }
}

fn logout_of(user: &str) -> ProviderLogout {
    ProviderLogout {
        provider: "corp".into(),
        sid: None,
        subject: Some(user.to_owned()),
    }
}

fn tokens(version: u64, sealed: &[u8]) -> Option<SealedTokens> {
    let sealed = sealed.into();
    Some(SealedTokens { version, sealed })
}

#[tokio::test]
async fn provider_tokens_survive_the_loss_of_the_store() {
    let fixture = Fixture::new(true).await;
    let sessions = &fixture.sessions;
    let id = fixture.sign_in("ann").await.id;
    let put = async |sessions: &Sessions, replaced, sealed: &[u8]| {
        let put = sessions.put_provider_tokens(id, replaced, sealed.into());
        put.await.unwrap()
    };
    assert_eq!(put(sessions, 0, b"a").await, PutTokensOutcome::Written);
    assert_eq!(put(sessions, 0, b"b").await, PutTokensOutcome::Changed);
    let after = fixture.after_store_loss();
    assert_eq!(after.provider_tokens(id).await.unwrap(), tokens(1, b"a"));
    assert_eq!(put(&after, 1, b"b").await, PutTokensOutcome::Written);
    // The first store has an older copy, with which nothing is exchanged.
    assert_eq!(sessions.provider_tokens(id).await.unwrap(), tokens(1, b"a"));
    let latest = sessions.provider_tokens_to_exchange(id).await.unwrap();
    assert_eq!(latest, tokens(2, b"b"));
    assert!(after.end(id, EndReason::SignOut, None).await.unwrap());
    assert_eq!(after.provider_tokens(id).await.unwrap(), None);
    assert_eq!(put(&after, 2, b"c").await, PutTokensOutcome::Gone);
}

#[tokio::test]
async fn identity_of_one_session_changes_in_store_and_row() {
    for is_durable in [false, true] {
        let fixture = Fixture::new(is_durable).await;
        let (one, other) = (fixture.sign_in("ann").await, fixture.sign_in("ann").await);
        let roles = ["staff".to_owned()];
        let identity = ExternalIdentity {
            email: "ann@example.com",
            name: Some("Ann"),
            roles: &roles,
            scopes: &[],
        };
        fixture
            .sessions
            .set_external_identity(one.id, identity)
            .await
            .unwrap();
        let found = async |id| fixture.sessions.find(id).await.unwrap().unwrap().session;
        assert_eq!(*found(one.id).await.roles, roles);
        assert!(found(other.id).await.roles.is_empty());
        if is_durable {
            let row = fixture.database.session(one.id).await.unwrap().unwrap();
            assert_eq!(row.session.email, "ann@example.com");
            assert_eq!(*row.session.roles, roles);
        }
    }
}

#[tokio::test]
async fn logout_ends_durable_sessions_that_the_store_has_lost() {
    let fixture = Fixture::new(true).await;
    let (ann, bob) = (fixture.sign_in("ann").await, fixture.sign_in("bob").await);
    let after = fixture.after_store_loss();
    let outcome = after.end_provider_sessions(&logout_of("ann")).await;
    outcome.ensured.unwrap();
    assert_eq!(outcome.ended.len(), 1);
    assert_eq!(outcome.ended[0].id, ann.id);
    let row = async |id| fixture.database.session(id).await.unwrap().unwrap();
    let end = row(ann.id).await.session.ended.unwrap();
    assert_eq!(end.reason, EndReason::Backchannel);
    assert_eq!(row(bob.id).await.session.ended, None);
}

#[tokio::test]
async fn logout_overtakes_the_sign_ins_that_began_before_it() {
    let fixture = Fixture::new(false).await;
    let sessions = &fixture.sessions;
    let start = sessions.begin_provider_sign_in(false).await.unwrap();
    let outcome = sessions.end_provider_sessions(&logout_of("ann")).await;
    outcome.ensured.unwrap();
    let (ann, bob) = (fixture.sign_in("ann").await, fixture.sign_in("bob").await);
    assert!(sessions.is_overtaken_by_logout(&ann, start).await.unwrap());
    assert!(!sessions.is_overtaken_by_logout(&bob, start).await.unwrap());
}

#[tokio::test]
async fn abandoned_change_of_a_key_is_published() {
    let fixture = Fixture::new(false).await;
    let (keys, store) = (fixture.sessions.api_keys(), &fixture.sessions.store);
    let rules = settings::ApiKeys {
        prefix: "pck".to_owned(),
        header: None,
        self_service: false,
        max_per_owner: 1,
        max_ttl: None,
    };
    let new = NewApiKey {
        owner: ApiKeyOwner::service("billing").unwrap(),
        name: "job".to_owned(),
        roles: Vec::new(),
        scopes: Vec::new(),
        allowed_ips: Vec::new(),
        expires_at: None,
    };
    let ApiKeyCreation::Created(_, key) = keys.create(new, &rules, None).await.unwrap() else {
        panic!("the key is not created");
    };
    keys.replay_changes().await;
    let address = "192.0.2.1".parse().unwrap();
    assert!(keys.look_up_row(key.id, address).await.unwrap().is_some());
    // As a call whose client disconnects once the database has the change.
    let unpublished = keys.begin_change(&[key.id]);
    let revoked = fixture
        .database
        .revoke_api_key(key.id, clock::unix_millis());
    assert_eq!(revoked.await.unwrap(), Some(true));
    drop(unpublished);
    let stored = store.reload_api_key(key.id).await.unwrap();
    assert!(matches!(stored, SessionLookup::Active(..)), "{stored:?}");
    keys.replay_changes().await;
    let stored = store.reload_api_key(key.id).await.unwrap();
    assert!(matches!(stored, SessionLookup::Missing), "{stored:?}");
}
