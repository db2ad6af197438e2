//! All sessions of a user end while the user signs in. Sessions are durable: in whatever order row and
//! copy in the store are written and ended, they agree afterwards.

use crate::durable::Fixture;
use crate::support::client::Request;
use crate::support::gateway::SignedIn;
use crate::support::postgres::Postgres;
use crate::support::wait::eventually;

/// Makes the next statement that trims a user's ended rows wait until `resumed` has a row. It is the
/// last one that a sign-in and an end send to the database before they write to the store. Clean-ups
/// of the table pass.
const PAUSE: &str = "CREATE TABLE resumed (at timestamptz);
    CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF current_query() LIKE 'DELETE FROM user_sessions WHERE user_id%'
            AND pg_try_advisory_xact_lock(1) THEN
            WHILE NOT EXISTS (SELECT FROM resumed) LOOP PERFORM pg_sleep(0.01); END LOOP;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER pause BEFORE DELETE ON user_sessions FOR EACH STATEMENT EXECUTE FUNCTION pause()";

/// A gateway on PostgreSQL, with a user who is signed in.
struct PausedDatabase {
    fixture: Fixture,
    database: String,
    ann: SignedIn,
}

impl PausedDatabase {
    fn each_store() -> [PausedDatabase; 2] {
        let server = Postgres::server();
        let databases = [server.database(), server.database()];
        let [memory, redis] = &databases;
        let fixtures = [
            Fixture::memory(|config| config.postgres(server.address, memory)),
            Fixture::redis(|config| config.postgres(server.address, redis)),
        ];
        let mut fixtures = fixtures.into_iter();
        databases.map(|database| {
            let fixture = fixtures.next().unwrap();
            let ann = fixture.gateway.register("ann@example.com");
            let paused = PausedDatabase {
                fixture,
                database,
                ann,
            };
            paused.sql(PAUSE);
            paused
        })
    }

    fn sql(&self, text: &str) -> String {
        Postgres::server().sql(&self.database, text).unwrap()
    }

    fn await_active_rows(&self, expected: u64) {
        let count = "SELECT count(*) FROM user_sessions WHERE is_active";
        eventually("the rows are written", || {
            (self.sql(count) == expected.to_string()).then_some(())
        });
    }

    fn resume(&self) {
        self.sql("INSERT INTO resumed VALUES (now())");
    }

    /// Ends all of the user's sessions; returns how many were alive.
    fn end_all(&self) -> u64 {
        let path = format!("/admin/users/{}/sessions", self.ann.user);
        let ended = self.fixture.gateway.admin(Request::delete(&path));
        ended.data()["revoked"].as_u64().unwrap()
    }
}

#[test]
fn session_created_after_the_rows_ended_is_not_revived() {
    for mut paused in PausedDatabase::each_store() {
        let (ended, during) = std::thread::scope(|scope| {
            let ending = scope.spawn(|| paused.end_all());
            paused.await_active_rows(0);
            let during = paused.fixture.gateway.login("ann@example.com");
            paused.resume();
            (ending.join().unwrap(), during)
        });
        assert_eq!(ended, 2);
        paused.fixture.lose_store_data();
        let refused = paused.fixture.request_by_cookie(&during);
        refused.assert_refused(401, "SESSION_REVOKED");
    }
}

#[test]
fn session_whose_row_ended_before_its_copy_is_revoked() {
    for paused in PausedDatabase::each_store() {
        let (ended, during) = std::thread::scope(|scope| {
            let signing_in = scope.spawn(|| paused.fixture.gateway.login("ann@example.com"));
            paused.await_active_rows(2);
            let ended = paused.end_all();
            paused.resume();
            (ended, signing_in.join().unwrap())
        });
        assert_eq!(ended, 2);
        let refused = paused.fixture.request_by_cookie(&during);
        refused.assert_refused(401, "SESSION_REVOKED");
    }
}
