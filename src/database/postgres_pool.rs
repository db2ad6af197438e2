//! Connection pool of a PostgreSQL server.
//!
//! The client's pool waits for a server that refuses connections, up to its timeout. This pool fails at
//! once, and a task waits for the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Connection, PgPool, Postgres};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Time within which an idle connection is acquired; after it, the server is probed.
const IDLE_ACQUIRE_TIMEOUT: Duration = Duration::from_millis(20);
/// Interval of probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Code of a server that is starting or shutting down.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// A pool, and whether its server refuses connections; clones share both.
#[derive(Debug, Clone)]
pub(super) struct PostgresPool {
    pool: PgPool,
    shared: Arc<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    is_refusing: watch::Sender<bool>,
    last_probe_at: Mutex<Option<Instant>>,
}

impl PostgresPool {
    pub(super) fn new(pool: PgPool) -> PostgresPool {
        let shared = PoolState {
            is_refusing: watch::Sender::new(false),
            last_probe_at: Mutex::default(),
        };
        PostgresPool {
            pool,
            shared: Arc::new(shared),
        }
    }

    /// The client's pool, for operations that may wait.
    pub(super) fn inner(&self) -> &PgPool {
        &self.pool
    }

    /// Acquires a connection; fails at once if the server refuses connections.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        if *self.shared.is_refusing.borrow() {
            return Err(connection_refused());
        }
        let mut acquiring = std::pin::pin!(self.pool.acquire());
        if let Ok(acquired) = timeout(IDLE_ACQUIRE_TIMEOUT, &mut acquiring).await {
            return acquired;
        }
        tokio::select! {
            biased;
            acquired = acquiring => acquired,
            () = self.wait_until_refused() => Err(connection_refused()),
        }
    }

    /// Returns once the server is known to refuse connections.
    async fn wait_until_refused(&self) {
        let mut refuses = self.shared.is_refusing.subscribe();
        loop {
            if *refuses.borrow_and_update() {
                return;
            }
            if self.is_probe_due() && self.probe_refuses().await {
                self.wait_for_server();
                return;
            }
            // Another caller's probe may detect a refusal meanwhile.
            let _ = timeout(PROBE_INTERVAL, refuses.changed()).await;
        }
    }

    /// Whether a probe is due; concurrent callers share one.
    fn is_probe_due(&self) -> bool {
        let now = Instant::now();
        let mut last_probe_at = self.shared.last_probe_at.lock();
        let is_due = last_probe_at.is_none_or(|at| now.duration_since(at) >= PROBE_INTERVAL);
        if is_due {
            *last_probe_at = Some(now);
        }
        is_due
    }

    /// Probes whether the server refuses connections. A server that does not respond does not.
    async fn probe_refuses(&self) -> bool {
        let options = self.pool.connect_options();
        match timeout(PROBE_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                let _ = timeout(PROBE_TIMEOUT, connection.close()).await;
                false
            }
            Ok(Err(sqlx::Error::Io(error))) => error.kind() == io::ErrorKind::ConnectionRefused,
            Ok(Err(error)) => error
                .as_database_error()
                .is_some_and(|error| error.code().as_deref() == Some(CANNOT_CONNECT_NOW)),
            Err(_) => false,
        }
    }

    /// Makes [`PostgresPool::acquire`] fail at once until a task can connect again.
    fn wait_for_server(&self) {
        if self.shared.is_refusing.send_replace(true) {
            return;
        }
        tracing::warn!("the database refuses connections");
        let pool = self.clone();
        tokio::spawn(async move {
            while !pool.pool.is_closed() {
                sleep(PROBE_INTERVAL).await;
                if !pool.probe_refuses().await {
                    break;
                }
            }
            pool.shared.is_refusing.send_replace(false);
            tracing::info!("the database accepts connections");
        });
    }
}

fn connection_refused() -> sqlx::Error {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}
