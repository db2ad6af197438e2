//! A Redis that has lost its data is noticed, and no token that was revoked before comes back: what was
//! revoked is restored from the database where it is kept there (`sessions.durable`); elsewhere every
//! token without session from before is refused.

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
struct Scene {
    gateway: Gateway,
    redis: Redis,
    issuer: Issuer,
    _upstream: Upstream,
}

/// How often a gateway has noticed that the store lost its data.
fn losses(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_store_data_lost_total", &[])
}

impl Scene {
    fn new(adjust: impl FnOnce(Config) -> Config) -> Scene {
        let (upstream, redis, issuer) = (Upstream::start(), Redis::start(), Issuer::new());
        let config = Config::new(upstream.address).store(&redis.url());
        let scene = Scene {
            gateway: Gateway::start(adjust(issuer.trusted_in(config))),
            redis,
            issuer,
            _upstream: upstream,
        };
        scene.await_marker();
        scene
    }

    fn durable() -> [Scene; 2] {
        let server = Postgres::server();
        let durable = |config: Config| config.set("/sessions/durable", json!(true));
        let database = server.database();
        [
            Scene::new(durable),
            Scene::new(|config| durable(config).postgres(server.address, &database)),
        ]
    }

    fn ask(&self, bearer: &str) -> Response {
        ask(&self.gateway, bearer)
    }

    /// Waits until the store has been told of everything: what is missing afterwards was lost.
    fn await_told(&self) {
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
        let asking = async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            let count = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
            pool.close().await;
            count
        };
        tokio::runtime::Runtime::new().unwrap().block_on(asking)
    }

    fn await_marker(&self) {
        eventually("the marker is there", || {
            let there = self.redis.command(&["EXISTS", "portcullis:marker"]);
            (there == "1").then_some(())
        });
    }

    /// By both ways, and asks as fast as it can meanwhile: never may one pass.
    fn lose(&mut self, how: Loss, revoked: &[String]) {
        let stop = AtomicBool::new(false);
        let gateway = &self.gateway;
        let redis = &mut self.redis;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    for bearer in revoked {
                        let status = ask(gateway, bearer).status;
                        assert!([401, 503].contains(&status), "{how:?}: {status}");
                    }
                }
            });
            match how {
                Loss::Flush => drop(redis.command(&["FLUSHALL"])),
                Loss::Death => {
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
    fn noticed(&self) -> usize {
        let path = "/admin/events?event=store_data_lost&limit=100";
        eventually("the event", || {
            let told = self.gateway.admin(Request::get(path));
            let told = (told.status == 200).then(|| told.data()["events"].clone())?;
            told.as_array().map(Vec::len).filter(|count| *count > 0)
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    Flush,
    Death,
}

fn ask(gateway: &Gateway, bearer: &str) -> Response {
    gateway.ask(&Request::get("/private/a").header("Authorization", bearer))
}

fn blacklist(gateway: &Gateway, jti: &str) -> u16 {
    let body = json!({ "jti": jti, "ttl": 600 });
    gateway
        .admin(Request::post("/admin/blacklist").json(&body))
        .status
}

fn sign_out_everywhere(gateway: &Gateway, bearer: &str) -> u16 {
    let everywhere = Request::post("/api/v1/auth/logout-all").header("Authorization", bearer);
    gateway.ask(&everywhere).status
}

#[test]
fn with_a_database_what_was_revoked_is_refused_and_everything_else_served() {
    for mut scene in Scene::durable() {
        let good = scene.issuer.bearer("good", "good");
        for (round, how) in [Loss::Flush, Loss::Death].into_iter().enumerate() {
            let name = |what: &str| format!("{what}{round}");
            let listed = scene.issuer.bearer("listed", &name("listed"));
            assert_eq!(blacklist(&scene.gateway, &name("listed")), 200);
            let out = scene.issuer.bearer(&name("out"), &name("out"));
            assert_eq!(sign_out_everywhere(&scene.gateway, &out), 200);
            let theirs = scene.issuer.bearer(&name("out"), "another");
            let revoked = [listed, theirs];
            for bearer in &revoked {
                scene.ask(bearer).refused(401, "TOKEN_REVOKED");
            }
            scene.ask(&good).ok();
            scene.await_told();
            scene.lose(how, &revoked);
            for _ in 0..20 {
                for bearer in &revoked {
                    let answer = scene.ask(bearer);
                    assert!([401, 503].contains(&answer.status), "{}", answer.text());
                }
            }
            within(Duration::from_secs(5), "others are served", || {
                (scene.ask(&good).status == 200).then_some(())
            });
            for bearer in &revoked {
                scene.ask(bearer).refused(401, "TOKEN_REVOKED");
            }
            // The journal was lost with the rest.
            assert_eq!(scene.noticed(), 1);
        }
        assert_eq!(losses(&scene.gateway), 2.0);
        // What is taken back stays so.
        let path = "/admin/blacklist/listed1";
        assert_eq!(scene.gateway.admin(Request::delete(path)).status, 204);
        scene.lose(Loss::Flush, &[]);
        let again = scene.issuer.bearer("listed", "listed1");
        within(Duration::from_secs(5), "it is served", || {
            (scene.ask(&again).status == 200).then_some(())
        });
    }
}

#[test]
fn what_a_backend_wrote_is_restored_as_well() {
    let server = Postgres::server();
    let database = server.database();
    let mut scene = Scene::new(|config| {
        let config = config.set("/sessions/durable", json!(true));
        config.postgres(server.address, &database)
    });
    let bearer = scene.issuer.bearer("somebody", "theirs");
    scene
        .redis
        .command(&["SET", "portcullis:blacklist:theirs", "1", "EX", "600"]);
    eventually("it is written down", || {
        let rows = server.sql(&database, "SELECT name FROM revocations")?;
        (rows == "token:theirs").then_some(())
    });
    scene.lose(Loss::Death, std::slice::from_ref(&bearer));
    eventually("it is back", || {
        let left = scene.redis.command(&["TTL", "portcullis:blacklist:theirs"]);
        (500..=600)
            .contains(&left.parse::<i64>().unwrap())
            .then_some(())
    });
    scene.ask(&bearer).refused(401, "TOKEN_REVOKED");
}

#[test]
fn without_a_database_every_token_without_session_from_before_is_refused() {
    for how in [Loss::Flush, Loss::Death] {
        let mut scene = Scene::new(|config| config);
        let ann = scene.gateway.register("ann@example.com");
        let (listed, good) = (
            scene.issuer.bearer("1", "listed"),
            scene.issuer.bearer("2", "good"),
        );
        assert_eq!(blacklist(&scene.gateway, "listed"), 200);
        scene.ask(&listed).refused(401, "TOKEN_REVOKED");
        scene.ask(&good).ok();
        scene.lose(how, std::slice::from_ref(&listed));
        // Sessions are gone, and the tokens of sessions with them.
        within(Duration::from_secs(5), "the loss is dealt with", || {
            let private = Request::get("/private/a").bearer(&ann.access_token);
            (scene.gateway.ask(&private).status == 401).then_some(())
        });
        for bearer in [&listed, &good] {
            within(Duration::from_secs(5), "it is refused", || {
                let answer = scene.ask(bearer);
                assert_ne!(answer.status, 200, "{how:?}");
                (answer.status == 401).then_some(())
            });
        }
        assert_eq!(scene.noticed(), 1);
        // It begins anew: the clock has to have moved on by a second.
        let new = eventually("a token that is issued now passes", || {
            let new = scene.issuer.issued("2", "new", 0);
            (scene.ask(&new).status == 200).then_some(new)
        });
        // And so it stays for a gateway that starts later.
        scene.gateway.restart();
        scene.ask(&good).refused(401, "TOKEN_REVOKED");
        scene.ask(&listed).refused(401, "TOKEN_REVOKED");
        scene.ask(&new).ok();
        assert_eq!(losses(&scene.gateway), 0.0);
    }
}

#[test]
fn a_loss_that_no_gateway_saw_is_noticed_at_the_start() {
    for durable in [false, true] {
        let mut scene = Scene::new(|config| config.set("/sessions/durable", json!(durable)));
        let (listed, good) = (
            scene.issuer.bearer("1", "listed"),
            scene.issuer.bearer("2", "good"),
        );
        assert_eq!(blacklist(&scene.gateway, "listed"), 200);
        scene.ask(&good).ok();
        let pid = scene.gateway.pid();
        crate::support::gateway::signal(pid, "KILL");
        scene.gateway.wait_exit();
        scene.redis.kill();
        scene.redis.restart();
        scene.gateway.restart();
        assert_eq!(scene.noticed(), 1);
        scene.ask(&listed).refused(401, "TOKEN_REVOKED");
        if durable {
            scene.ask(&good).ok();
        } else {
            scene.ask(&good).refused(401, "TOKEN_REVOKED");
        }
    }
}

#[test]
fn a_first_start_refuses_nothing_and_two_at_once_agree() {
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
                (ask(gateway, &good).status == 200).then_some(())
            });
            assert_eq!(losses(gateway), 0.0);
        }
        markers.insert(redis.command(&["GET", "portcullis:marker"]));
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(markers.len(), 1, "{markers:?}");
    // Nobody has noticed anything but what all notice: each of them refuses what it has to.
    redis.command(&["FLUSHALL"]);
    for gateway in &gateways {
        within(Duration::from_secs(5), "it is refused", || {
            (ask(gateway, &good).status == 401).then_some(())
        });
    }
}

#[test]
fn what_is_revoked_while_redis_is_away_is_told_to_it_before_it_is_trusted() {
    for mut scene in Scene::durable() {
        let (listed, out) = (
            scene.issuer.bearer("1", "listed"),
            scene.issuer.bearer("3", "out"),
        );
        let (leaving, good) = (
            scene.issuer.bearer("4", "left"),
            scene.issuer.bearer("2", "good"),
        );
        for bearer in [&listed, &out, &leaving, &good] {
            scene.ask(bearer).ok();
        }
        scene.redis.stop();
        eventually("redis is away", || {
            (scene.gateway.metric("portcullis_store_up", &[]) == 0.0).then_some(())
        });
        assert_eq!(blacklist(&scene.gateway, "listed"), 200);
        let logout = Request::post("/api/v1/auth/logout").header("Authorization", &leaving);
        assert_eq!(scene.gateway.ask(&logout).status, 204);
        // Its knowledge of them goes with it.
        scene.gateway.restart();
        scene.redis.cont();
        for _ in 0..50 {
            for bearer in [&listed, &leaving] {
                let answer = scene.ask(bearer);
                assert!([401, 503].contains(&answer.status), "{}", answer.text());
            }
        }
        within(Duration::from_secs(5), "others are served", || {
            (scene.ask(&good).status == 200).then_some(())
        });
        for bearer in [&listed, &leaving] {
            scene.ask(bearer).refused(401, "TOKEN_REVOKED");
        }
    }
}

#[test]
fn without_a_database_a_revocation_in_an_outage_is_not_pretended() {
    let mut scene = Scene::new(|config| config);
    scene.redis.kill();
    assert_eq!(blacklist(&scene.gateway, "listed"), 503);
    let logout = Request::post("/api/v1/auth/logout");
    let logout = logout.header("Authorization", &scene.issuer.bearer("4", "left"));
    scene.gateway.ask(&logout).refused(503, "STORE_UNAVAILABLE");
}

#[test]
fn a_redis_that_was_restored_from_an_old_snapshot_is_told_of_the_last_hour() {
    for scene in Scene::durable() {
        let listed = scene.issuer.bearer("1", "listed");
        let out = scene.issuer.bearer("3", "out");
        assert_eq!(blacklist(&scene.gateway, "listed"), 200);
        assert_eq!(sign_out_everywhere(&scene.gateway, &out), 200);
        scene.await_told();
        // The marker is there, and what was revoked is not.
        let keys = scene.redis.keys();
        let revoked = |key: &&String| key.contains("blacklist:") || key.contains("cutoff:");
        let revoked: Vec<&String> = keys.iter().filter(revoked).collect();
        assert_eq!(revoked.len(), 3, "{keys:?}");
        for key in revoked {
            scene.redis.command(&["DEL", key]);
        }
        scene.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        let theirs = scene.issuer.bearer("3", "another");
        within(Duration::from_secs(5), "they are refused again", || {
            let refused = |bearer: &str| scene.ask(bearer).status == 401;
            (refused(&listed) && refused(&theirs)).then_some(())
        });
        eventually("they are back", || {
            let keys = scene.redis.keys();
            let there = |word: &str| keys.iter().any(|key| key.contains(word));
            (there("blacklist:listed") && there("cutoff:")).then_some(())
        });
        assert_eq!(losses(&scene.gateway), 0.0);
    }
}

#[test]
fn a_master_of_a_cluster_that_comes_back_empty_is_noticed() {
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
            (ask(&gateway, &good).status == 200).then_some(())
        });
        let listed: Vec<String> = (0..6).map(|n| format!("listed{n}")).collect();
        for jti in &listed {
            assert_eq!(blacklist(&gateway, jti), 200);
        }
        let key = format!("portcullis:blacklist:{}", listed[0]);
        let (_, place) = nodes.owner(&key);
        nodes.empty(place);
        within(Duration::from_secs(20), "it is noticed", || {
            (losses(&gateway) >= 1.0).then_some(())
        });
        let expected = if durable { 200 } else { 401 };
        within(Duration::from_secs(20), "the cluster is used again", || {
            for jti in &listed {
                let status = ask(&gateway, &issuer.bearer("1", jti)).status;
                assert_ne!(status, 200, "{jti}");
            }
            (ask(&gateway, &good).status == expected).then_some(())
        });
        for jti in &listed {
            ask(&gateway, &issuer.bearer("1", jti)).refused(401, "TOKEN_REVOKED");
        }
    }
}
