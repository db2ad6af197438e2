//! A database that refuses connections costs nobody the time that a slow one may take.

use std::time::{Duration, Instant};

use serde_json::json;

use super::durable::refresh;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::cuttable::Cuttable;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// Less than the five seconds that a statement may take.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn sign_ins_and_refreshes_fail_at_once_and_go_on_when_it_is_back() {
    for durable in [false, true] {
        let (redis, server, upstream) = (Redis::start(), Postgres::server(), Upstream::start());
        let link = Cuttable::before(server.address);
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
            gateway.ask(&login).refused(503, "STORE_UNAVAILABLE");
            refresh(&gateway, &ann.refresh_token).refused(503, "STORE_UNAVAILABLE");
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
        gateway.logged("the database did not respond");
        assert!(gateway.lets_in(&ann));
        link.restore();
        eventually("the database is used again", || {
            gateway.try_login("ann@example.com")
        });
        refresh(&gateway, &ann.refresh_token).ok();
    }
}
