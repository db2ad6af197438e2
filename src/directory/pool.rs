//! The connections to a PostgreSQL server. The client's pool waits for a server that refuses connections,
//! up to its deadline. Here that is an error at once, and a task waits for the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Connection, PgPool, Postgres};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// An idle connection is there within this time; after it, the server is tried.
const AT_ONCE: Duration = Duration::from_millis(20);
/// How often the server is tried.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// How long a trial may take.
const TRIAL: Duration = Duration::from_secs(2);
/// The code of a server that is starting or ending: "cannot_connect_now".
const NOT_NOW: &str = "57P03";

/// A pool, and whether its server refuses connections; clones share both.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pool: PgPool,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    refuses: watch::Sender<bool>,
    tried: Mutex<Option<Instant>>,
}

impl Pool {
    pub(super) fn new(pool: PgPool) -> Pool {
        let shared = Shared {
            refuses: watch::Sender::new(false),
            tried: Mutex::default(),
        };
        Pool {
            pool,
            shared: Arc::new(shared),
        }
    }

    /// The client's pool, for what may wait.
    pub(super) fn inner(&self) -> &PgPool {
        &self.pool
    }

    /// Takes a connection. A server that refuses connections is an error at once.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        if *self.shared.refuses.borrow() {
            return Err(refused());
        }
        let mut acquiring = std::pin::pin!(self.pool.acquire());
        if let Ok(acquired) = timeout(AT_ONCE, &mut acquiring).await {
            return acquired;
        }
        tokio::select! {
            biased;
            acquired = acquiring => acquired,
            () = self.is_refused() => Err(refused()),
        }
    }

    /// Returns once the server is known to refuse connections.
    async fn is_refused(&self) {
        let mut refuses = self.shared.refuses.subscribe();
        loop {
            if *refuses.borrow_and_update() {
                return;
            }
            if self.may_try() && self.refuses().await {
                self.wait_for_server();
                return;
            }
            // Another trial may find it meanwhile.
            let _ = timeout(TRY_EVERY, refuses.changed()).await;
        }
    }

    /// Whether a trial is due: those that wait share one.
    fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut tried = self.shared.tried.lock();
        let is_due = tried.is_none_or(|at| now.duration_since(at) >= TRY_EVERY);
        if is_due {
            *tried = Some(now);
        }
        is_due
    }

    /// Tries whether the server refuses connections. One that does not respond does not refuse.
    async fn refuses(&self) -> bool {
        let options = self.pool.connect_options();
        match timeout(TRIAL, options.connect()).await {
            Ok(Ok(connection)) => {
                let _ = timeout(TRIAL, connection.close()).await;
                false
            }
            Ok(Err(sqlx::Error::Io(error))) => error.kind() == io::ErrorKind::ConnectionRefused,
            Ok(Err(error)) => error
                .as_database_error()
                .is_some_and(|error| error.code().as_deref() == Some(NOT_NOW)),
            Err(_) => false,
        }
    }

    /// Lets everybody fail at once until a task finds that the server takes connections.
    fn wait_for_server(&self) {
        if self.shared.refuses.send_replace(true) {
            return;
        }
        tracing::warn!("the database refuses connections");
        let pool = self.clone();
        tokio::spawn(async move {
            while !pool.pool.is_closed() {
                sleep(TRY_EVERY).await;
                if !pool.refuses().await {
                    break;
                }
            }
            pool.shared.refuses.send_replace(false);
            tracing::info!("the database takes connections");
        });
    }
}

fn refused() -> sqlx::Error {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}
