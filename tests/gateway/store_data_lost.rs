//! A Redis that has lost its data is detected, and no revoked token becomes valid again:
//! revocations are restored from the database where it has them (`sessions.durable`); elsewhere
//! every earlier token without a session is refused.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::issuer::Issuer;
use crate::support::nodes::Nodes;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

/// A gateway that trusts an issuer whose tokens have no session.
struct Fixture {
    gateway: Gateway,
    redis: Redis,
    issuer: Issuer,
    _upstream: Upstream,
}

/// How often a gateway has noticed that the store lost its data.
fn detected_losses(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_store_data_lost_total", &[])
}

impl Fixture {
    fn new(adjust: impl FnOnce(Config) -> Config) -> Fixture {
        let (upstream, redis, issuer) = (Upstream::start(), Redis::start(), Issuer::new());
        let config = Config::new(upstream.address).store(&redis.url());
        let fixture = Fixture {
            gateway: Gateway::start(adjust(issuer.trusted_in(config))),
            redis,
            issuer,
            _upstream: upstream,
        };
        fixture.await_marker();
        fixture
    }

    fn durable() -> [Fixture; 2] {
        let server = Postgres::server();
        let durable = |config: Config| config.set("/sessions/durable", json!(true));
        let database = server.database();
        [
            Fixture::new(durable),
            Fixture::new(|config| durable(config).postgres(server.address, &database)),
        ]
    }

    fn request(&self, bearer: &str) -> Response {
        request(&self.gateway, bearer)
    }

    /// Waits until the store has received all writes: data that is missing afterwards was lost.
    fn await_replay(&self) {
        eventually("everything is told", || {
            (self.count("SELECT count(*) FROM revocations WHERE untold") == 0).then_some(())
        });
    }

    /// The number that a statement gives in the gateway's database.
    fn count(&self, sql: &'static str) -> i64 {
        let url = self.gateway.config.file["database"]["url"]
            .as_str()
            .unwrap();
        let Some(path) = url.strip_prefix("sqlite:") else {
            let (_, database) = url.rsplit_once('/').unwrap();
            return Postgres::server()
                .sql(database, sql)
                .unwrap()
                .parse()
                .unwrap();
        };
        let pending = async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            let count = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
            pool.close().await;
            count
        };
        tokio::runtime::Runtime::new().unwrap().block_on(pending)
    }

    fn await_marker(&self) {
        eventually("the marker is there", || {
            let there = self.redis.command(&["EXISTS", "portcullis:marker"]);
            (there == "1").then_some(())
        });
    }

    /// By both ways, and asks as fast as it can meanwhile: never may one pass.
    fn lose_data(&mut self, how: DataLoss, revoked: &[String]) {
        let stop = AtomicBool::new(false);
        let gateway = &self.gateway;
        let redis = &mut self.redis;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    for bearer in revoked {
                        let status = request(gateway, bearer).status;
                        assert!([401, 503].contains(&status), "{how:?}: {status}");
                    }
                }
            });
            match how {
                DataLoss::Flush => drop(redis.command(&["FLUSHALL"])),
                DataLoss::Restart => {
                    redis.kill();
                    redis.restart();
                }
            }
            let lost = || (redis.command(&["EXISTS", "portcullis:marker"]) == "1").then_some(());
            eventually("it is noticed", lost);
            stop.store(true, Ordering::SeqCst);
        });
    }

    /// How often it was noticed, as the journal has it since the loss.
    fn reported_losses(&self) -> usize {
        let path = "/admin/events?event=store_data_lost&limit=100";
        eventually("the event", || {
            let reported = self.gateway.admin(Request::get(path));
            let reported = (reported.status == 200).then(|| reported.data()["events"].clone())?;
            reported.as_array().map(Vec::len).filter(|count| *count > 0)
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum DataLoss {
    Flush,
    Restart,
}

fn request(gateway: &Gateway, bearer: &str) -> Response {
    gateway.request(&Request::get("/private/a").header("Authorization", bearer))
}

fn blacklist(gateway: &Gateway, jti: &str) -> u16 {
    let body = json!({ "jti": jti, "ttl": 600 });
    gateway
        .admin(Request::post("/admin/blacklist").json(&body))
        .status
}

fn sign_out_everywhere(gateway: &Gateway, bearer: &str) -> u16 {
    let everywhere = Request::post("/api/v1/auth/logout-all").header("Authorization", bearer);
    gateway.request(&everywhere).status
}

#[test]
fn revocations_survive_data_loss_with_a_database() {
    for mut fixture in Fixture::durable() {
        let good = fixture.issuer.bearer("good", "good");
        for (round, how) in [DataLoss::Flush, DataLoss::Restart].into_iter().enumerate() {
            let name = |what: &str| format!("{what}{round}");
            let listed = fixture.issuer.bearer("listed", &name("listed"));
            assert_eq!(blacklist(&fixture.gateway, &name("listed")), 200);
            let out = fixture.issuer.bearer(&name("out"), &name("out"));
            assert_eq!(sign_out_everywhere(&fixture.gateway, &out), 200);
            let theirs = fixture.issuer.bearer(&name("out"), "another");
            let revoked = [listed, theirs];
            for bearer in &revoked {
                fixture.request(bearer).assert_refused(401, "TOKEN_REVOKED");
            }
            fixture.request(&good).assert_ok();
            fixture.await_replay();
            fixture.lose_data(how, &revoked);
            for _ in 0..20 {
                for bearer in &revoked {
                    let response = fixture.request(bearer);
                    assert!([401, 503].contains(&response.status), "{}", response.text());
                }
            }
            within(Duration::from_secs(5), "others are served", || {
                (fixture.request(&good).status == 200).then_some(())
            });
            for bearer in &revoked {
                fixture.request(bearer).assert_refused(401, "TOKEN_REVOKED");
            }
            // The journal was lost with the rest.
            assert_eq!(fixture.reported_losses(), 1);
        }
        assert_eq!(detected_losses(&fixture.gateway), 2.0);
        // What is taken back stays so.
        let path = "/admin/blacklist/listed1";
        assert_eq!(fixture.gateway.admin(Request::delete(path)).status, 204);
        fixture.lose_data(DataLoss::Flush, &[]);
        let again = fixture.issuer.bearer("listed", "listed1");
        within(Duration::from_secs(5), "it is served", || {
            (fixture.request(&again).status == 200).then_some(())
        });
    }
}

#[test]
fn external_blacklist_entries_are_restored() {
    let server = Postgres::server();
    let database = server.database();
    let mut fixture = Fixture::new(|config| {
        let config = config.set("/sessions/durable", json!(true));
        config.postgres(server.address, &database)
    });
    let bearer = fixture.issuer.bearer("somebody", "theirs");
    fixture
        .redis
        .command(&["SET", "portcullis:blacklist:theirs", "1", "EX", "600"]);
    eventually("it is written down", || {
        let rows = server.sql(&database, "SELECT name FROM revocations")?;
        (rows == "token:theirs").then_some(())
    });
    fixture.lose_data(DataLoss::Restart, std::slice::from_ref(&bearer));
    eventually("it is back", || {
        let left = fixture
            .redis
            .command(&["TTL", "portcullis:blacklist:theirs"]);
        (500..=600)
            .contains(&left.parse::<i64>().unwrap())
            .then_some(())
    });
    fixture
        .request(&bearer)
        .assert_refused(401, "TOKEN_REVOKED");
}

#[test]
fn older_sessionless_tokens_are_refused_without_database() {
    for how in [DataLoss::Flush, DataLoss::Restart] {
        let mut fixture = Fixture::new(|config| config);
        let ann = fixture.gateway.register("ann@example.com");
        let (listed, good) = (
            fixture.issuer.bearer("1", "listed"),
            fixture.issuer.bearer("2", "good"),
        );
        assert_eq!(blacklist(&fixture.gateway, "listed"), 200);
        fixture
            .request(&listed)
            .assert_refused(401, "TOKEN_REVOKED");
        fixture.request(&good).assert_ok();
        fixture.lose_data(how, std::slice::from_ref(&listed));
        // Sessions are gone, and the tokens of sessions with them.
        within(Duration::from_secs(5), "the loss is dealt with", || {
            let private = Request::get("/private/a").bearer(&ann.access_token);
            (fixture.gateway.request(&private).status == 401).then_some(())
        });
        for bearer in [&listed, &good] {
            within(Duration::from_secs(5), "it is refused", || {
                let response = fixture.request(bearer);
                assert_ne!(response.status, 200, "{how:?}");
                (response.status == 401).then_some(())
            });
        }
        assert_eq!(fixture.reported_losses(), 1);
        // It begins anew: the clock has to have moved on by a second.
        let new = eventually("a token that is issued now passes", || {
            let new = fixture.issuer.bearer_issued_at("2", "new", 0);
            (fixture.request(&new).status == 200).then_some(new)
        });
        // And so it stays for a gateway that starts later.
        fixture.gateway.restart();
        fixture.request(&good).assert_refused(401, "TOKEN_REVOKED");
        fixture
            .request(&listed)
            .assert_refused(401, "TOKEN_REVOKED");
        fixture.request(&new).assert_ok();
        assert_eq!(detected_losses(&fixture.gateway), 0.0);
    }
}

#[test]
fn data_loss_while_stopped_is_detected_at_start() {
    for durable in [false, true] {
        let mut fixture = Fixture::new(|config| config.set("/sessions/durable", json!(durable)));
        let (listed, good) = (
            fixture.issuer.bearer("1", "listed"),
            fixture.issuer.bearer("2", "good"),
        );
        assert_eq!(blacklist(&fixture.gateway, "listed"), 200);
        fixture.request(&good).assert_ok();
        let pid = fixture.gateway.pid();
        crate::support::gateway::signal(pid, "KILL");
        fixture.gateway.wait_exit();
        fixture.redis.kill();
        fixture.redis.restart();
        fixture.gateway.restart();
        assert_eq!(fixture.reported_losses(), 1);
        fixture
            .request(&listed)
            .assert_refused(401, "TOKEN_REVOKED");
        if durable {
            fixture.request(&good).assert_ok();
        } else {
            fixture.request(&good).assert_refused(401, "TOKEN_REVOKED");
        }
    }
}

#[test]
fn concurrent_first_starts_agree_and_refuse_nothing() {
    let (upstream, redis, issuer) = (Upstream::start(), Redis::start(), Issuer::new());
    let good = issuer.bearer("2", "good");
    let start = || {
        let config = Config::new(upstream.address).store(&redis.url());
        Gateway::start(issuer.trusted_in(config))
    };
    let gateways: Vec<Gateway> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        starting
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect()
    });
    let mut markers = BTreeSet::new();
    for _ in 0..3 {
        for gateway in &gateways {
            within(Duration::from_secs(5), "it is served", || {
                (request(gateway, &good).status == 200).then_some(())
            });
            assert_eq!(detected_losses(gateway), 0.0);
        }
        markers.insert(redis.command(&["GET", "portcullis:marker"]));
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(markers.len(), 1, "{markers:?}");
    // Each gateway notices only the loss that all notice, and each refuses the affected tokens.
    redis.command(&["FLUSHALL"]);
    for gateway in &gateways {
        within(Duration::from_secs(5), "it is refused", || {
            (request(gateway, &good).status == 401).then_some(())
        });
    }
}

#[test]
fn revocations_are_replayed_before_redis_is_trusted() {
    for mut fixture in Fixture::durable() {
        let (listed, out) = (
            fixture.issuer.bearer("1", "listed"),
            fixture.issuer.bearer("3", "out"),
        );
        let (leaving, good) = (
            fixture.issuer.bearer("4", "left"),
            fixture.issuer.bearer("2", "good"),
        );
        for bearer in [&listed, &out, &leaving, &good] {
            fixture.request(bearer).assert_ok();
        }
        fixture.redis.pause();
        eventually("redis is away", || {
            (fixture.gateway.metric("portcullis_store_up", &[]) == 0.0).then_some(())
        });
        assert_eq!(blacklist(&fixture.gateway, "listed"), 200);
        let logout = Request::post("/api/v1/auth/logout").header("Authorization", &leaving);
        assert_eq!(fixture.gateway.request(&logout).status, 204);
        // Its knowledge of them goes with it.
        fixture.gateway.restart();
        fixture.redis.resume();
        for _ in 0..50 {
            for bearer in [&listed, &leaving] {
                let response = fixture.request(bearer);
                assert!([401, 503].contains(&response.status), "{}", response.text());
            }
        }
        within(Duration::from_secs(5), "others are served", || {
            (fixture.request(&good).status == 200).then_some(())
        });
        for bearer in [&listed, &leaving] {
            fixture.request(bearer).assert_refused(401, "TOKEN_REVOKED");
        }
    }
}

#[test]
fn revocation_during_outage_is_503_without_database() {
    let mut fixture = Fixture::new(|config| config);
    fixture.redis.kill();
    assert_eq!(blacklist(&fixture.gateway, "listed"), 503);
    let logout = Request::post("/api/v1/auth/logout");
    let logout = logout.header("Authorization", &fixture.issuer.bearer("4", "left"));
    fixture
        .gateway
        .request(&logout)
        .assert_refused(503, "STORE_UNAVAILABLE");
}

#[test]
fn last_hour_is_replayed_to_an_old_snapshot() {
    for fixture in Fixture::durable() {
        let listed = fixture.issuer.bearer("1", "listed");
        let out = fixture.issuer.bearer("3", "out");
        assert_eq!(blacklist(&fixture.gateway, "listed"), 200);
        assert_eq!(sign_out_everywhere(&fixture.gateway, &out), 200);
        fixture.await_replay();
        // The marker is there, and what was revoked is not.
        let keys = fixture.redis.keys();
        let revoked = |key: &&String| key.contains("blacklist:") || key.contains("cutoff:");
        let revoked: Vec<&String> = keys.iter().filter(revoked).collect();
        assert_eq!(revoked.len(), 3, "{keys:?}");
        for key in revoked {
            fixture.redis.command(&["DEL", key]);
        }
        fixture.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        let theirs = fixture.issuer.bearer("3", "another");
        within(Duration::from_secs(5), "they are refused again", || {
            let refused = |bearer: &str| fixture.request(bearer).status == 401;
            (refused(&listed) && refused(&theirs)).then_some(())
        });
        eventually("they are back", || {
            let keys = fixture.redis.keys();
            let there = |word: &str| keys.iter().any(|key| key.contains(word));
            (there("blacklist:listed") && there("cutoff:")).then_some(())
        });
        assert_eq!(detected_losses(&fixture.gateway), 0.0);
    }
}

#[test]
fn empty_cluster_master_is_detected() {
    for durable in [true, false] {
        // Longer than a restart takes: its replica does not take over.
        let mut nodes = Nodes::start("60000");
        let (upstream, issuer) = (Upstream::start(), Issuer::new());
        let hosts: Vec<String> = nodes
            .ports()
            .iter()
            .map(|p| format!("127.0.0.1:{p}"))
            .collect();
        let config = Config::new(upstream.address)
            .store(&format!("redis+cluster://{}", hosts.join(",")))
            .set("/store/timeout", json!("500ms"))
            .set("/sessions/durable", json!(durable));
        let gateway = Gateway::start(issuer.trusted_in(config));
        let good = issuer.bearer("2", "good");
        within(Duration::from_secs(10), "it is served", || {
            (request(&gateway, &good).status == 200).then_some(())
        });
        let listed: Vec<String> = (0..6).map(|n| format!("listed{n}")).collect();
        for jti in &listed {
            assert_eq!(blacklist(&gateway, jti), 200);
        }
        let key = format!("portcullis:blacklist:{}", listed[0]);
        let (_, place) = nodes.owner(&key);
        nodes.empty(place);
        within(Duration::from_secs(20), "it is noticed", || {
            (detected_losses(&gateway) >= 1.0).then_some(())
        });
        let expected = if durable { 200 } else { 401 };
        within(Duration::from_secs(20), "the cluster is used again", || {
            for jti in &listed {
                let status = request(&gateway, &issuer.bearer("1", jti)).status;
                assert_ne!(status, 200, "{jti}");
            }
            (request(&gateway, &good).status == expected).then_some(())
        });
        for jti in &listed {
            request(&gateway, &issuer.bearer("1", jti)).assert_refused(401, "TOKEN_REVOKED");
        }
    }
}
