//! One connection and the task that keeps it: connects, watches, replaces. While it is down every
//! question fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::super::StoreError;
use super::fault::Fault;
use super::scripts::Scripts;
use crate::metrics::Metrics;
use crate::settings::RedisAddress;

/// How often a silent connection is tried.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long it may take to answer then. Both together stay below half a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is used well within half a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How many questions may wait to be written.
const QUESTIONS_WAITING: usize = 1024;
/// How often the log may say the same.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// What all links of a process share.
pub(super) struct Links {
    address: RedisAddress,
    metrics: Arc<Metrics>,
    up: AtomicI64,
    /// How many times a link has come up.
    risings: AtomicU64,
    made: AtomicI64,
    /// Told when a link has come up, to those that wait.
    risen: Notify,
    started: Instant,
    /// When something was last logged, in milliseconds since `started`, plus one.
    logged: AtomicU64,
}

impl Links {
    pub(super) fn new(address: RedisAddress, metrics: Arc<Metrics>) -> Links {
        Links {
            address,
            metrics,
            up: AtomicI64::new(0),
            risings: AtomicU64::new(0),
            made: AtomicI64::new(0),
            risen: Notify::new(),
            started: Instant::now(),
            logged: AtomicU64::new(0),
        }
    }

    pub(super) fn risings(&self) -> u64 {
        self.risings.load(Ordering::SeqCst)
    }

    /// How many there are, and how many of them are up.
    pub(super) fn count(&self) -> (u64, u64) {
        let read = |count: &AtomicI64| count.load(Ordering::SeqCst).unsigned_abs();
        (read(&self.made), read(&self.up))
    }

    fn changed(&self, by: i64) {
        let up = self.up.fetch_add(by, Ordering::SeqCst) + by;
        self.metrics.store_up.set(i64::from(up > 0));
        if by > 0 {
            self.risings.fetch_add(1, Ordering::SeqCst);
            self.risen.notify_waiters();
        }
    }

    fn warn(&self, what: &str, fault: &Fault) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.logged.load(Ordering::Relaxed);
        let due = last == 0 || now + 1 >= last + LOG_EVERY.as_millis() as u64;
        let ours = || {
            self.logged
                .compare_exchange(last, now + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if due && ours() {
            tracing::warn!(
                server = %format_args!("{}:{}", self.address.host, self.address.port),
                code = fault.code,
                "{what}: {}",
                fault.error
            );
        }
    }
}

/// A supervised connection; its task ends with it.
pub(super) struct Link {
    line: Arc<Line>,
    supervisor: AbortHandle,
}

/// What the link and its task share.
struct Line {
    links: Arc<Links>,
    scripts: Arc<Scripts>,
    state: ArcSwap<State>,
    suspected: Notify,
}

enum State {
    Up(Connected),
    Down(StoreError),
}

struct Connected {
    connection: MultiplexedConnection,
    failed: Arc<Notify>,
    /// Milliseconds since the links were made, as of the last answer.
    answered: Arc<AtomicU64>,
}

impl Link {
    /// Starts the task that connects, on the current tokio runtime.
    pub(super) fn supervised(links: Arc<Links>, scripts: Arc<Scripts>) -> Link {
        links.made.fetch_add(1, Ordering::SeqCst);
        let line = Arc::new(Line {
            links,
            scripts,
            state: ArcSwap::from_pointee(State::Down(StoreError::Unreachable)),
            suspected: Notify::new(),
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&line))).abort_handle();
        Link { line, supervisor }
    }

    pub(super) fn up(&self) -> bool {
        matches!(**self.line.state.load(), State::Up(_))
    }

    pub(super) fn suspect(&self) {
        self.line.suspected.notify_one();
    }

    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        let (mut connection, failed, answered) = self.connected()?;
        let outcome = command.query_async(&mut connection).await;
        self.judge(outcome, &failed, &answered)
    }

    /// Answers that are errors are among those returned.
    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let (mut connection, failed, answered) = self.connected()?;
        let count = commands.len();
        let outcome = connection.send_packed_commands(commands, 0, count).await;
        let replies = self.judge(outcome, &failed, &answered)?;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                self.mind(
                    &Fault::from(redis::RedisError::from(error.clone())),
                    &failed,
                );
            }
        }
        Ok(replies)
    }

    fn connected(&self) -> Result<(MultiplexedConnection, Arc<Notify>, Arc<AtomicU64>), Fault> {
        match &**self.line.state.load() {
            State::Up(up) => Ok((
                up.connection.clone(),
                Arc::clone(&up.failed),
                Arc::clone(&up.answered),
            )),
            State::Down(error) => Err(Fault {
                error: *error,
                fatal: false,
                no_script: false,
                code: String::new(),
            }),
        }
    }

    fn judge<T>(
        &self,
        outcome: Result<T, redis::RedisError>,
        failed: &Notify,
        answered: &AtomicU64,
    ) -> Result<T, Fault> {
        let fault = match outcome {
            Ok(answer) => {
                answered.store(self.line.elapsed(), Ordering::Relaxed);
                return Ok(answer);
            }
            Err(error) => Fault::from(error),
        };
        self.mind(&fault, failed);
        Err(fault)
    }

    fn mind(&self, fault: &Fault, failed: &Notify) {
        if fault.fatal {
            failed.notify_one();
        }
        if fault.error == StoreError::Refused && !fault.no_script {
            self.line
                .links
                .warn("the store refuses an operation", fault);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Only now is the task gone as well, and cannot come up again.
        self.fall(StoreError::Unreachable);
        self.links.made.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Line {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.links.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn rise(&self, connected: Connected) {
        // Counted first: who finds the link up knows that it came up.
        self.links.changed(1);
        self.state.store(Arc::new(State::Up(connected)));
    }

    fn fall(&self, error: StoreError) {
        let before = self.state.swap(Arc::new(State::Down(error)));
        if matches!(*before, State::Up(_)) {
            self.links.changed(-1);
        }
    }
}

async fn supervise(line: Arc<Line>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match connect(&line).await {
            Ok(connection) => {
                pause = FIRST_PAUSE;
                let failed = Arc::new(Notify::new());
                let answered = Arc::new(AtomicU64::new(line.elapsed()));
                line.rise(Connected {
                    connection: connection.clone(),
                    failed: Arc::clone(&failed),
                    answered: Arc::clone(&answered),
                });
                tracing::debug!("connected to the store");
                let fault = watch(&line, connection, &failed, &answered).await;
                line.fall(fault.error);
                line.links.warn("lost the store", &fault);
            }
            Err(fault) => {
                line.fall(fault.error);
                line.links.warn("cannot use the store", &fault);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        let share = rand::random_range(0.5..=1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(share)) => {}
            // Another link of this gateway has found the store again: no worker stays behind.
            () = line.links.risen.notified() => {}
        }
    }
}

/// Connects, signs in and loads the scripts.
async fn connect(line: &Line) -> Result<MultiplexedConnection, Fault> {
    let address = &line.links.address;
    let mut redis = RedisConnectionInfo::default().set_db(address.database);
    if let Some(username) = &address.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &address.password {
        redis = redis.set_password(password.expose_secret());
    }
    let info = ConnectionAddr::Tcp(address.host.clone(), address.port)
        .into_connection_info()?
        .set_redis_settings(redis)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUESTIONS_WAITING);
    let connecting = async {
        let mut connection = Client::open(info)?
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let _: Value = line.scripts.loading().query_async(&mut connection).await?;
        must_be_master(&mut connection).await?;
        Ok::<_, Fault>(connection)
    };
    timeout(CONNECT_WITHIN, connecting)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

/// A replica would answer what is asked and refuse what is written; one that may not be asked for
/// its role shows it at the first write.
async fn must_be_master(connection: &mut MultiplexedConnection) -> Result<(), Fault> {
    let role = redis::cmd("ROLE")
        .query_async::<Vec<Value>>(connection)
        .await;
    let name = role.unwrap_or_default().into_iter().next();
    if name == Some(Value::BulkString(b"slave".to_vec())) {
        return Err(Fault {
            code: "READONLY".to_owned(),
            ..silent()
        });
    }
    Ok(())
}

/// Returns when the connection is of no use any more.
async fn watch(
    line: &Line,
    mut connection: MultiplexedConnection,
    failed: &Notify,
    answered: &AtomicU64,
) -> Fault {
    let quiet_for = || {
        let since = answered.load(Ordering::Relaxed);
        Duration::from_millis(line.elapsed().saturating_sub(since))
    };
    loop {
        let suspected = tokio::select! {
            () = failed.notified() => return lost(),
            () = line.suspected.notified() => true,
            () = tokio::time::sleep(WATCH_EVERY.saturating_sub(quiet_for())) => false,
        };
        // Whoever answers others need not be asked.
        if !suspected && quiet_for() < WATCH_EVERY {
            continue;
        }
        let ping = redis::cmd("PING");
        let answer = timeout(ANSWER_WITHIN, ping.query_async::<Value>(&mut connection));
        match answer.await {
            Ok(Ok(_)) => answered.store(line.elapsed(), Ordering::Relaxed),
            Ok(Err(error)) => return Fault::from(error),
            Err(_) => return silent(),
        }
    }
}

fn silent() -> Fault {
    Fault {
        error: StoreError::Unreachable,
        fatal: true,
        no_script: false,
        code: "no answer".to_owned(),
    }
}

fn lost() -> Fault {
    Fault {
        code: "connection lost".to_owned(),
        ..silent()
    }
}
