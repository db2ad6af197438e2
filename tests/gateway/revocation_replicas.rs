//! `store.revocation_replicas`: 2xx when the replica has the revocation, 503 while it has not, and
//! in force on this gateway in either case. A Redis that is too slow delays no request.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, PASSWORD, run};
use crate::support::redis::Redis;
use crate::support::servers::Process;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

struct Fixture {
    gateway: Gateway,
    master: Process,
    replica: Process,
    _folder: tempfile::TempDir,
    _upstream: Upstream,
}

fn fixture(adjust: impl FnOnce(Config) -> Config) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let (master, replica) = Process::serving_with_replica(folder.path());
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&format!("redis://127.0.0.1:{}", master.port))
        .set("/store/timeout", json!("1s"))
        .set("/store/revocation_replicas", json!(1));
    Fixture {
        gateway: Gateway::start(adjust(config)),
        master,
        replica,
        _folder: folder,
        _upstream: upstream,
    }
}

fn for_each_session_store(test: impl Fn(Fixture)) {
    test(fixture(|config| config));
    test(fixture(|config| {
        config.set("/sessions/durable", json!(true))
    }));
}

#[test]
fn sign_out_without_replica_confirmation_is_503() {
    for_each_session_store(|fixture| {
        let gateway = &fixture.gateway;
        let (ann, bob) = (gateway.register("a@x.test"), gateway.register("b@x.test"));
        let out = |cookie: &str| {
            let out = Request::post("/api/v1/auth/logout").cookie(cookie);
            gateway.request(&out.same_origin())
        };
        assert_eq!(out(&ann.cookie).status, 204);
        fixture.replica.signal("STOP");
        for _ in 0..2 {
            let began = Instant::now();
            out(&bob.cookie).assert_refused(503, "STORE_UNAVAILABLE");
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{:?}",
                began.elapsed()
            );
            let there = Request::get("/private/a").cookie(&bob.cookie);
            gateway
                .request(&there)
                .assert_refused(401, "SESSION_REVOKED");
        }
        let list = Request::post("/admin/blacklist").json(&json!({ "jti": "x" }));
        gateway.admin(list).assert_refused(503, "STORE_UNAVAILABLE");
        let unreplicated = ["kind=\"unreplicated\""];
        assert!(gateway.metric("portcullis_store_errors_total", &unreplicated) >= 2.0);
        fixture.replica.signal("CONT");
        eventually("the replica has it", || {
            (out(&bob.cookie).status == 204).then_some(())
        });
    });
}

#[test]
fn check_reports_too_few_replicas() {
    let fixture = fixture(|config| config);
    let mut config = Config::new(fixture._upstream.address)
        .store(&format!("redis://127.0.0.1:{}", fixture.master.port))
        .set("/store/revocation_replicas", json!(1));
    let mut check = |replicas: u32| {
        config.put("/store/revocation_replicas", json!(replicas));
        let file = config.write();
        run(&["check", "--connect", "--config", file.to_str().unwrap()])
    };
    assert_eq!(check(1).0, 0);
    let (status, out, err) = check(2);
    assert_eq!(status, 1, "{out}{err}");
    assert!(
        err.contains("it has 1 replicas and revocation_replicas is 2"),
        "{err}"
    );
}

#[test]
fn slow_redis_opens_the_breaker() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let line = FaultProxy::before(redis.address);
    let gateway = Gateway::start(
        Config::new(upstream.address)
            .store(&format!("redis://{}", line.address))
            .set("/store/timeout", json!("100ms"))
            // What this gateway knows it goes on answering: this it has to ask for.
            .limit(
                "asked",
                json!({ "algorithm": "sliding_window", "limit": 1_000_000, "window": "10m",
                    "key": "ip", "on_outage": "deny" }),
            ),
    );
    // A busy machine may need more than one attempt within this timeout.
    let body = json!({ "email": "a@x.test", "password": PASSWORD });
    let register = Request::post("/api/v1/auth/register").json(&body);
    let ann = eventually("a user is signed in", || {
        gateway.request(&register);
        gateway.try_login("a@x.test")
    });
    let send = || {
        let response = gateway.request(&Request::get("/private/a").bearer(&ann.access_token));
        assert_ne!(response.status, 401, "{}", response.text());
        response.status
    };
    let errors = |kind: &str| {
        let label = format!("kind=\"{kind}\"");
        gateway.metric("portcullis_store_errors_total", &[&label])
    };
    eventually("the store is used", || (send() == 200).then_some(()));
    line.delay(Duration::from_millis(55));
    eventually("the breaker opens", || {
        send();
        (gateway.metric("portcullis_store_breaker", &[]) == 2.0).then_some(())
    });
    let waited = errors("timeout");
    for _ in 0..50 {
        assert_eq!(send(), 503);
    }
    assert_eq!(errors("timeout"), waited, "no request waits");
    line.restore();
    eventually("it is used again", || (send() == 200).then_some(()));
    eventually("the breaker closes", || {
        (gateway.metric("portcullis_store_breaker", &[]) == 0.0).then_some(())
    });
    gateway.wait_for_log("store breaker changed");
}
