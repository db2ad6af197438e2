//! A revocation that cannot be ensured is a 503, and so is every further attempt at any gateway
//! until it succeeds: on every path that ends a session or revokes a token.

use serde_json::json;
use tempfile::TempDir;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::http2::Http2;
use crate::support::issuer::Issuer;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::servers::Process;
use crate::support::tokens::{hs256, modified_claims, now};
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// What keeps revocations from being ensured.
enum Outage {
    /// `revocation_replicas: 1`, and the replica does not confirm.
    Replica {
        _master: Process,
        replica: Process,
        _folder: TempDir,
    },
    /// `sessions.durable`, and the database is gone.
    Database { redis: Redis, link: FaultProxy },
}

impl Outage {
    fn begin(&self) {
        match self {
            Outage::Replica { replica, .. } => replica.signal("STOP"),
            Outage::Database { link, .. } => link.cut(),
        }
    }

    fn end(&self) {
        match self {
            Outage::Replica { replica, .. } => replica.signal("CONT"),
            Outage::Database { link, .. } => link.restore(),
        }
    }

    /// Loses what only the store has, where the database has to have it.
    fn flush(&self) {
        if let Outage::Database { redis, .. } = self {
            redis.command(&["FLUSHALL"]);
        }
    }
}

struct Fleet {
    gateways: [Gateway; 2],
    issuer: Issuer,
    outage: Outage,
    _upstream: Upstream,
}

fn gateways(config: impl Fn() -> Config, issuer: &Issuer) -> [Gateway; 2] {
    let first = issuer.trusted_in(config());
    let database = first.file["database"].clone();
    let second = issuer.trusted_in(config()).set("/database", database);
    [first, second].map(Gateway::start)
}

fn config(upstream: &Upstream) -> Config {
    Config::new(upstream.address)
        .set("/store/timeout", json!("500ms"))
        .set("/tokens/refresh_grace", json!("1ms"))
        .set("/routes/0/on_unauthenticated", json!("redirect"))
}

fn without_replica() -> Fleet {
    let folder = tempfile::tempdir().unwrap();
    let (master, replica) = Process::serving_with_replica(folder.path());
    let port = master.port;
    let (upstream, issuer) = (Upstream::start(), Issuer::new());
    let config = || {
        config(&upstream)
            .store(&format!("redis://127.0.0.1:{port}"))
            .set("/store/revocation_replicas", json!(1))
    };
    Fleet {
        gateways: gateways(config, &issuer),
        issuer,
        outage: Outage::Replica {
            _master: master,
            replica,
            _folder: folder,
        },
        _upstream: upstream,
    }
}

fn without_database() -> Fleet {
    let (redis, server) = (Redis::start(), Postgres::server());
    let link = FaultProxy::before(server.address);
    let database = server.database();
    let (upstream, issuer) = (Upstream::start(), Issuer::new());
    let config = || {
        config(&upstream)
            .store(&redis.url())
            .postgres(link.address, &database)
            .set("/sessions/durable", json!(true))
    };
    Fleet {
        gateways: gateways(config, &issuer),
        issuer,
        outage: Outage::Database { redis, link },
        _upstream: upstream,
    }
}

type Attempt = Box<dyn Fn(&Gateway) -> Response + Send + Sync>;

/// One way to end something, and the requests that are refused once it has ended.
struct RevocationPath {
    name: &'static str,
    attempt: Attempt,
    ended: Vec<Request>,
}

fn public_attempt(request: Request) -> Attempt {
    Box::new(move |gateway| gateway.request(&request))
}

fn admin_attempt(request: Request) -> Attempt {
    Box::new(move |gateway| gateway.admin(request.clone()))
}

fn private() -> Request {
    Request::get("/private/a").header("Accept", "application/json")
}

fn cookie_of(user: &SignedIn) -> Request {
    private().cookie(&user.cookie)
}

fn logout() -> Request {
    Request::post("/api/v1/auth/logout")
}

fn over_http2(cookie: String) -> Attempt {
    Box::new(move |gateway| {
        let headers = [("cookie", &*cookie), ("sec-fetch-site", "same-origin")];
        let connection = Http2::connect(gateway.public);
        let (status, text) = connection.request("POST", "/api/v1/auth/logout", &headers);
        Response {
            status,
            headers: Vec::new(),
            body: text.into(),
        }
    })
}

impl Fleet {
    /// Signs a new user in and gives the sessions to one path.
    fn path(
        &self,
        name: &'static str,
        of: impl FnOnce(&SignedIn, &SignedIn) -> (Attempt, Vec<Request>),
    ) -> RevocationPath {
        let email = format!("{}@x.test", name.replace([' ', '/'], "-"));
        let (here, there) = (
            self.gateways[0].register(&email),
            self.gateways[1].login(&email),
        );
        let (attempt, ended) = of(&here, &there);
        RevocationPath {
            name,
            attempt,
            ended,
        }
    }

    fn sign_outs(&self) -> Vec<RevocationPath> {
        let by_header = |caller: &SignedIn| format!("Session {}", caller.session_token);
        let own =
            |caller: &SignedIn| vec![cookie_of(caller), private().bearer(&caller.access_token)];
        vec![
            self.path("logout by cookie", |ann, _| {
                let out = logout().cookie(&ann.cookie).same_origin();
                (public_attempt(out), own(ann))
            }),
            self.path("logout over HTTP2", |ann, _| {
                (over_http2(ann.cookie.clone()), own(ann))
            }),
            self.path("logout by session header", |ann, _| {
                let out = logout().header("Authorization", &by_header(ann));
                (public_attempt(out), own(ann))
            }),
            self.path("logout by token", |ann, _| {
                (public_attempt(logout().bearer(&ann.access_token)), own(ann))
            }),
            self.path("logout by expired token", |ann, _| {
                let old = json!({ "iat": now() - 900, "nbf": null, "exp": now() - 60 });
                let expired = hs256(&modified_claims(&ann.access_token, &old));
                (public_attempt(logout().bearer(&expired)), own(ann))
            }),
            self.path("logout by refresh token", |ann, _| {
                let body = json!({ "refresh_token": ann.refresh_token });
                (public_attempt(logout().json(&body)), own(ann))
            }),
            self.path("sign-out page", |ann, _| {
                let form = "application/x-www-form-urlencoded";
                let out = Request::post("/api/v1/sign-out").header("Content-Type", form);
                let out = out.body("").cookie(&ann.cookie).same_origin();
                (public_attempt(out), own(ann))
            }),
        ]
    }

    fn user_ends(&self) -> Vec<RevocationPath> {
        let delete = |path: String, caller: &SignedIn| {
            public_attempt(Request::delete(&path).cookie(&caller.cookie).same_origin())
        };
        vec![
            self.path("logout-all", |ann, other| {
                let out = Request::post("/api/v1/auth/logout-all");
                let out = out.cookie(&ann.cookie).same_origin();
                (public_attempt(out), vec![cookie_of(ann), cookie_of(other)])
            }),
            self.path("logout-all by token", |ann, other| {
                let out = Request::post("/api/v1/auth/logout-all").bearer(&ann.access_token);
                (public_attempt(out), vec![cookie_of(ann), cookie_of(other)])
            }),
            self.path("DELETE current", |ann, _| {
                let current = "/api/v1/sessions/current".to_owned();
                (delete(current, ann), vec![cookie_of(ann)])
            }),
            self.path("DELETE own id", |ann, _| {
                let own = format!("/api/v1/sessions/{}", ann.session);
                (delete(own, ann), vec![cookie_of(ann)])
            }),
            self.path("DELETE other id", |ann, other| {
                let other_one = format!("/api/v1/sessions/{}", other.session);
                (delete(other_one, ann), vec![cookie_of(other)])
            }),
            self.path("DELETE sessions", |ann, other| {
                let all = "/api/v1/sessions".to_owned();
                (delete(all, ann), vec![cookie_of(other)])
            }),
            self.path("password", |ann, other| {
                let body =
                    json!({ "current_password": PASSWORD, "new_password": "another-long-one-7" });
                let change = Request::new("PUT", "/api/v1/profile/password").json(&body);
                let change = change.cookie(&ann.cookie).same_origin();
                (public_attempt(change), vec![cookie_of(other)])
            }),
            self.path("replaced by a sign-in", |ann, _| {
                let body = json!({ "email": "replaced-by-a-sign-in@x.test", "password": PASSWORD });
                let login = Request::post("/api/v1/auth/login").json(&body);
                (
                    public_attempt(login.cookie(&ann.cookie)),
                    vec![cookie_of(ann)],
                )
            }),
            self.path("reused refresh token", |ann, _| {
                let body = json!({ "refresh_token": ann.refresh_token });
                let refresh = Request::post("/api/v1/auth/refresh").json(&body);
                self.gateways[0].request(&refresh).assert_ok();
                (public_attempt(refresh), vec![cookie_of(ann)])
            }),
        ]
    }

    fn admin_ends(&self) -> Vec<RevocationPath> {
        let patch = |caller: &SignedIn, body: serde_json::Value| {
            let path = format!("/admin/users/{}", caller.user);
            admin_attempt(Request::new("PATCH", &path).json(&body))
        };
        vec![
            self.path("admin DELETE session", |ann, _| {
                let path = format!("/admin/sessions/{}", ann.session);
                (admin_attempt(Request::delete(&path)), vec![cookie_of(ann)])
            }),
            self.path("admin DELETE sessions", |ann, other| {
                let path = format!("/admin/users/{}/sessions", ann.user);
                let ended = vec![cookie_of(ann), cookie_of(other)];
                (admin_attempt(Request::delete(&path)), ended)
            }),
            self.path("admin disable", |ann, other| {
                let ended = vec![cookie_of(ann), cookie_of(other)];
                (patch(ann, json!({ "disabled": true })), ended)
            }),
            self.path("admin password", |ann, other| {
                let ended = vec![cookie_of(ann), cookie_of(other)];
                (
                    patch(ann, json!({ "password": "another-long-one-7" })),
                    ended,
                )
            }),
        ]
    }

    /// What is revoked of users who have no session here.
    fn issuer_token_revocations(&self) -> Vec<RevocationPath> {
        let bearer = |user: &str| self.issuer.bearer(user, user);
        let as_user = |request: Request, user: &str| request.header("Authorization", &bearer(user));
        let everywhere = Request::post("/api/v1/auth/logout-all");
        let listed = json!({ "jti": "listed" });
        vec![
            RevocationPath {
                name: "logout by foreign token",
                attempt: public_attempt(as_user(logout(), "one")),
                ended: vec![as_user(private(), "one")],
            },
            RevocationPath {
                name: "logout-all by foreign token",
                attempt: public_attempt(as_user(everywhere, "two")),
                ended: vec![as_user(private(), "two")],
            },
            RevocationPath {
                name: "admin blacklist",
                attempt: admin_attempt(Request::post("/admin/blacklist").json(&listed)),
                ended: vec![as_user(private(), "listed")],
            },
        ]
    }

    fn assert_503_until_confirmed(&self) {
        let mut paths = self.sign_outs();
        paths.extend(self.user_ends());
        paths.extend(self.admin_ends());
        paths.extend(self.issuer_token_revocations());
        self.outage.begin();
        std::thread::scope(|scope| {
            for path in &paths {
                scope.spawn(move || {
                    for place in [0, 0, 1, 0] {
                        let response = (path.attempt)(&self.gateways[place]);
                        let text = response.text();
                        assert_eq!(response.status, 503, "{} at {place}: {text}", path.name);
                        let cleared = response.header("set-cookie").is_some();
                        assert!(!cleared, "{} cleared the cookie", path.name);
                    }
                });
            }
        });
        self.outage.end();
        for path in &paths {
            eventually(path.name, || {
                let response = (path.attempt)(&self.gateways[0]);
                assert!(
                    matches!(response.status, 200 | 204 | 401 | 503),
                    "{}: {}",
                    path.name,
                    response.text()
                );
                (response.status != 503).then_some(())
            });
        }
        self.outage.flush();
        for path in &paths {
            for (request, gateway) in path
                .ended
                .iter()
                .flat_map(|request| self.gateways.iter().map(move |gateway| (request, gateway)))
            {
                let response = eventually(path.name, || {
                    Some(gateway.request(request)).filter(|response| response.status != 503)
                });
                assert_eq!(response.status, 401, "{}: {}", path.name, response.text());
            }
        }
    }
}

#[test]
fn unconfirmed_replica_keeps_revocations_at_503() {
    without_replica().assert_503_until_confirmed();
}

#[test]
fn missing_database_keeps_revocations_at_503() {
    without_database().assert_503_until_confirmed();
}
