//! A PostgreSQL server across a network: no intermediary may read or impersonate it.

use std::time::Duration;

use serde_json::json;

use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::postgres::{PASSWORD, Postgres, USER};
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::within;

#[test]
fn postgres_certificate_and_name_are_verified() {
    let (authority, own) = tls::issue("localhost");
    let server = Postgres::start(Some((&own.cert, &own.key)));
    let (database, port) = (server.database(), server.address.port());
    let upstream = Upstream::start();
    let config = |host: &str, mode: &str, trusted: &str| {
        let config = Config::new(upstream.address);
        config.write_beside("ca.pem", trusted);
        let url = format!("postgres://{USER}@{host}:{port}/{database}?sslmode={mode}");
        config
            .set("/database/url", json!(format!("{url}&sslrootcert=ca.pem")))
            .set("/database/password", json!(PASSWORD))
    };
    let gateway = Gateway::start(config("localhost", "verify-full", &authority.cert));
    let ann = gateway.register("ann@example.com");
    assert!(gateway.accepts(&ann));
    let open = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'portcullis'";
    assert_eq!(server.sql(&database, open).as_deref(), Some("t"));
    // The certificate does not name the address.
    Gateway::start(config("127.0.0.1", "verify-ca", &authority.cert));
    let (stranger, _) = tls::issue("localhost");
    for (host, mode, trusted) in [
        ("127.0.0.1", "verify-full", &authority.cert),
        ("localhost", "verify-full", &stranger.cert),
        ("localhost", "verify-ca", &stranger.cert),
    ] {
        let mut gateway = Gateway::spawn(config(host, mode, trusted), &[]);
        let exit = within(Duration::from_secs(30), "it does not start", || {
            gateway.exit_status()
        });
        let logs = gateway.logs();
        assert_eq!(exit.code(), Some(1), "{host} {mode}: {logs}");
        assert!(logs.contains("database"), "{logs}");
        assert!(!logs.contains(PASSWORD), "{logs}");
    }
}
