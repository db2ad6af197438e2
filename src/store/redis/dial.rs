//! How one connection is made: TCP, TLS where it is wanted, who we are, and what must hold before it
//! is used.

use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, Value};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;

use super::super::deadline::{self, AN_ANSWER};
use super::fault::Fault;
use super::scripts::Scripts;
use super::tls;
use crate::settings::{Node, RedisAddress, RedisTls, Sentinels, Topology};

const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How many answers come one after the other until a connection is made.
const FEW_ANSWERS: u32 = 5;
/// How many questions may wait to be written.
const QUESTIONS_WAITING: usize = 16_384;

enum Stream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Connects to a server of the store, signs in and loads the scripts. A replica will do: it serves reads.
pub(super) async fn store(
    server: &Node,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, Fault> {
    let connecting = async {
        let mut connection = plain(server, address).await?;
        let _: Value = scripts.loading().query_async(&mut connection).await?;
        Ok(connection)
    };
    within(CONNECT_WITHIN, connecting).await
}

/// As [`store`], to a master: there is one elsewhere, if not here.
pub(super) async fn master(
    server: &Node,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, Fault> {
    let connecting = async {
        let mut connection = store(server, address, scripts).await?;
        must_be_master(&mut connection).await?;
        Ok(connection)
    };
    within(CONNECT_WITHIN, connecting).await
}

/// Whether a new connection to the server's address reaches a master.
pub(super) async fn leads_to_master(server: &Node, address: &RedisAddress) -> bool {
    let connecting = async {
        let mut connection = plain(server, address).await?;
        must_be_master(&mut connection).await
    };
    within(CONNECT_WITHIN, connecting).await.is_ok()
}

/// As [`master`], of a cluster that is whole.
pub(super) async fn member(
    server: &Node,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, Fault> {
    let connecting = async {
        let mut connection = master(server, address, scripts).await?;
        let mut question = redis::cmd("CLUSTER");
        let state = question.arg("INFO").query_async::<Value>(&mut connection);
        // One that may not be asked shows at the first question how things stand.
        if state.await.is_ok_and(|state| is_no_master(&state)) {
            return Err(Fault::unreachable("CLUSTERDOWN"));
        }
        Ok(connection)
    };
    within(CONNECT_WITHIN, connecting).await
}

/// Connects to a server of the store, to receive its changes; to a master, where there is one elsewhere
/// if not here.
pub(super) async fn listening(
    server: &Node,
    address: &RedisAddress,
    told: impl AsyncPushSender,
) -> Result<MultiplexedConnection, Fault> {
    let connecting = async {
        let who = signed_in(address).set_protocol(ProtocolVersion::RESP3);
        let config = config().set_push_sender(told);
        let mut connection = multiplexed(server, address.tls.as_ref(), &who, config).await?;
        if !matches!(address.topology, Topology::Standalone(_)) {
            must_be_master(&mut connection).await?;
        }
        Ok(connection)
    };
    within(CONNECT_WITHIN, connecting).await
}

/// Connects to a server of the store and signs in.
pub(super) async fn plain(
    server: &Node,
    address: &RedisAddress,
) -> Result<MultiplexedConnection, Fault> {
    multiplexed(server, address.tls.as_ref(), &signed_in(address), config()).await
}

/// Connects to a Sentinel, for questions.
pub(super) async fn sentinel(
    node: &Node,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<MultiplexedConnection, Fault> {
    multiplexed(node, tls, &at_sentinel(sentinels), config()).await
}

/// Connects to a Sentinel, for what it announces.
pub(super) async fn announcements(
    node: &Node,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<PubSub, Fault> {
    let who = at_sentinel(sentinels);
    Ok(match stream(node, tls).await? {
        Stream::Plain(stream) => PubSub::new(&who, stream).await?,
        Stream::Secured(stream) => PubSub::new(&who, stream).await?,
    })
}

/// Waits for no longer than this.
pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let outcome = deadline::within(patience, FEW_ANSWERS * AN_ANSWER, work).await;
    outcome.unwrap_or_else(|| Err(Fault::unreachable("no answer")))
}

fn signed_in(address: &RedisAddress) -> RedisConnectionInfo {
    let mut who = RedisConnectionInfo::default().set_db(address.database);
    if let Some(username) = &address.username {
        who = who.set_username(username);
    }
    if let Some(password) = &address.password {
        who = who.set_password(password.expose_secret());
    }
    who
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUESTIONS_WAITING)
}

fn at_sentinel(sentinels: &Sentinels) -> RedisConnectionInfo {
    let who = RedisConnectionInfo::default();
    match &sentinels.password {
        Some(password) => who.set_password(password.expose_secret()),
        None => who,
    }
}

async fn multiplexed(
    node: &Node,
    tls: Option<&RedisTls>,
    who: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, Fault> {
    match stream(node, tls).await? {
        Stream::Plain(stream) => driven(stream, who, config).await,
        Stream::Secured(stream) => driven(stream, who, config).await,
    }
}

async fn stream(node: &Node, tls: Option<&RedisTls>) -> Result<Stream, Fault> {
    let stream = TcpStream::connect((node.host.as_str(), node.port)).await;
    let stream = stream.map_err(redis::RedisError::from)?;
    stream.set_nodelay(true).map_err(redis::RedisError::from)?;
    Ok(match tls {
        None => Stream::Plain(stream),
        Some(files) => Stream::Secured(Box::new(tls::secured(node, files, stream).await?)),
    })
}

/// Speaks over a stream, by a task that ends with the last handle.
async fn driven<S>(
    stream: S,
    who: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, Fault>
where
    S: Unpin + AsyncRead + AsyncWrite + Send + 'static,
{
    let (connection, driver) = MultiplexedConnection::new_with_config(who, stream, config).await?;
    // Tokio takes turns after 128 questions; where a turn of all others is long, the last of thousands that
    // were asked at once would be late.
    tokio::spawn(unconstrained(driver));
    Ok(connection)
}

/// A replica would answer what is asked and refuse what is written; one that may not be asked for
/// its role shows it at the first write.
async fn must_be_master(connection: &mut MultiplexedConnection) -> Result<(), Fault> {
    let role = redis::cmd("ROLE").query_async::<Value>(connection).await;
    if role.is_ok_and(|role| is_no_master(&role)) {
        return Err(Fault::unreachable("READONLY"));
    }
    Ok(())
}

/// Whether an answer to `ROLE` is that of a replica, or one to `CLUSTER INFO` that of a server which
/// is cut off from its cluster.
pub(super) fn is_no_master(reply: &Value) -> bool {
    match reply {
        Value::Array(role) => role.first() == Some(&Value::BulkString(b"slave".to_vec())),
        Value::BulkString(_) | Value::VerbatimString { .. } => {
            let state: String = redis::from_redis_value_ref(reply).unwrap_or_default();
            state.contains("cluster_state:fail")
        }
        _ => false,
    }
}
