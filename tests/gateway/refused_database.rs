//! A database that refuses connections costs no caller the time that a slow one may take.

use std::time::{Duration, Instant};

use serde_json::json;

use super::durable::refresh;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// Less than the five seconds that a statement may take.
const FAIL_FAST_DEADLINE: Duration = Duration::from_secs(3);

#[test]
fn refused_database_fails_fast_and_recovers() {
    for durable in [false, true] {
        let (redis, server, upstream) = (Redis::start(), Postgres::server(), Upstream::start());
        let link = FaultProxy::before(server.address);
        let config = Config::new(upstream.address)
            .store(&redis.url())
            .postgres(link.address, &server.database())
            .set("/sessions/durable", json!(durable));
        let gateway = Gateway::start(config);
        let ann = gateway.register("ann@example.com");
        link.refuse();
        let body = json!({ "email": "ann@example.com", "password": PASSWORD });
        let login = Request::post("/api/v1/auth/login").json(&body);
        for _ in 0..2 {
            let began = Instant::now();
            gateway
                .request(&login)
                .assert_refused(503, "STORE_UNAVAILABLE");
            refresh(&gateway, &ann.refresh_token).assert_refused(503, "STORE_UNAVAILABLE");
            assert!(
                began.elapsed() < FAIL_FAST_DEADLINE,
                "{:?}",
                began.elapsed()
            );
        }
        gateway.wait_for_log("the database did not respond");
        assert!(gateway.accepts(&ann));
        link.restore();
        eventually("the database is used again", || {
            gateway.try_login("ann@example.com")
        });
        refresh(&gateway, &ann.refresh_token).assert_ok();
    }
}
