//! A gateway's services over the memory store, assembled as its composition root does.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use portcullis::auth::session::{Millis, OnSessionLimit};
use portcullis::auth::token::AccessTokenClaims;
use portcullis::database::Database;
use portcullis::events::Events;
use portcullis::identity::Accounts;
use portcullis::identity::oidc::ProviderTokens;
use portcullis::pipeline::admission::{Admission, Memo, Permit};
use portcullis::pipeline::facts::{RequestFacts, RequestHead, client_origin};
use portcullis::pipeline::fields::{Field, FieldList, Fields};
use portcullis::pipeline::snapshot::Snapshot;
use portcullis::rejection::Rejection;
use portcullis::sessions::Sessions;
use portcullis::settings::{ForwardedBy, ListenerId, Settings};
use portcullis::store::Store;
use portcullis::telemetry::metrics::Metrics;
use portcullis::{config, routing};
use tokio::runtime::Runtime;

use crate::sample;

/// What stands between the first request and the last.
pub(crate) struct Fixture {
    pub(crate) runtime: Runtime,
    pub(crate) snapshot: Snapshot,
    metrics: Arc<Metrics>,
    store: Store,
    sessions: Sessions,
    events: Events,
    memo: Memo,
    provider_tokens: ProviderTokens,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// Signs tokens by `signing`, which is YAML; has the routes `/open`, `/known` and `/limited`.
    pub(crate) fn new(signing: &str) -> Fixture {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(signing, 0, folder.path());
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let entered = runtime.enter();
        let directory = runtime.block_on(Database::open(&settings.boot.database));
        let store = Store::open(&settings.boot.store, Arc::clone(&metrics)).connect();
        let directory = directory.expect("a database");
        let events = Events::new(store.clone());
        let sessions = Sessions::new(
            store.clone(),
            &settings.boot.store,
            directory.clone(),
            Arc::clone(&metrics),
            false,
        );
        let accounts = Accounts::new(
            directory,
            sessions.clone(),
            store.clone(),
            Arc::clone(&metrics),
            events.clone(),
        );
        let provider_tokens = ProviderTokens::new(accounts.expect("randomness"));
        drop(entered);
        Fixture {
            snapshot: Snapshot::offline(settings.reloadable, &metrics),
            sessions,
            events,
            provider_tokens,
            memo: Memo::default(),
            runtime,
            metrics,
            store,
            _folder: folder,
        }
    }

    /// Signs a user in; returns the headers of a request with a token of that session.
    pub(crate) fn sign_in(&self) -> HeaderMap {
        let session = sample::session(1, now());
        let rules = &self.snapshot.settings.sessions;
        let limit = OnSessionLimit::EvictOldest;
        let created = self
            .store
            .create_session(&session, None, 5, limit, rules.idle_timeout);
        self.runtime.block_on(created).expect("a session");
        let token = self.token(&session.user, now());
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a header");
        let mut headers = request_headers();
        headers.insert(http::header::AUTHORIZATION, bearer);
        headers
    }

    /// A token of the sample's first session, made at `now`.
    pub(crate) fn token(&self, user: &str, now: Millis) -> String {
        let minting = AccessTokenClaims {
            user,
            session: sample::id(1),
            token_id: "00000000-0000-4000-9000-000000000001",
            email: Some("user-00000001@example.org"),
        };
        let tokens = &self.snapshot.settings.tokens;
        tokens.mint(&minting, now).expect("a token")
    }

    /// What is decided over a request for the route of this name.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) async fn admit(
        &self,
        route: &str,
        headers: &HeaderMap,
    ) -> Result<Permit, Rejection> {
        let live = &self.snapshot.settings;
        let mut routes = live.routes.routes().iter();
        let route = routes.find(|one| &*one.name == route).expect("the route");
        let admission = Admission {
            snapshot: &self.snapshot,
            store: &self.store,
            sessions: &self.sessions,
            metrics: &self.metrics,
            events: Some(&self.events),
            memo: &self.memo,
            provider_tokens: &self.provider_tokens,
            request_id: &portcullis::telemetry::request_id::RequestId::EMPTY,
        };
        let list: FieldList<'_> = headers.iter().map(Field::from).collect();
        let fields = Fields::new(&list);
        let (peer, by) = ([198, 51, 100, 7].into(), ForwardedBy::XForwardedFor);
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
            now: now(),
        };
        admission.admit(route, &facts).await
    }
}

/// A configuration with this many routes beside the three, each with its own prefix.
pub(crate) fn settings(signing: &str, routes: usize, folder: &Path) -> Settings {
    let mut text = format!(
        "listeners: [{{bind: '127.0.0.1:1'}}]
database: {{url: 'sqlite:people.db'}}
tokens: {{access_ttl: 24h, signing: {signing}}}
upstreams: {{behind: {{servers: ['http://127.0.0.1:2']}}}}
limits:
  wide: {{algorithm: sliding_window, window: 1m, limit: 1000000000, key: user}}
routes:
  - {{name: open, match: {{prefix: /open}}, auth: none, upstream: behind}}
  - {{name: known, match: {{prefix: /known}}, upstream: behind}}
  - {{name: limited, match: {{prefix: /limited}}, limits: [wide], upstream: behind}}
"
    );
    for number in 0..routes {
        writeln!(
            text,
            "  - {{name: route-{number}, match: {{prefix: /service-{number}/api}}, upstream: behind}}"
        )
        .expect("memory");
    }
    let parsed = config::parse(&text, &folder.join("portcullis.yaml"));
    parsed.expect("a configuration without a mistake")
}

/// What a browser sends, credentials left out.
pub(crate) fn request_headers() -> HeaderMap {
    let fields = [
        ("host", "shop.example.com"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        ),
        (
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://shop.example.com/orders"),
        ("cookie", "theme=dark; consent=2026-01-07"),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-site", "same-origin"),
    ];
    let named = fields.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    named.into_iter().collect()
}

/// A route's path, read.
pub(crate) fn path(raw: &str) -> routing::Path<'_> {
    routing::Path::read(raw.as_bytes()).expect("a path")
}

pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Millis::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(Millis::MAX)
}
