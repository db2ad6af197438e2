//! Connection setup: TCP, TLS if configured, authentication, and checks before the first use.

use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisResult, Value};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::exchange_error::ExchangeError;
use super::pipelined_connection::PipelinedConnection;
use super::tls;
use crate::settings::{RedisAddress, RedisNode, RedisTls, Sentinels, Topology};
use crate::store::deadline;
use crate::store::deadline::REPLY_ROUNDS;
use crate::store::redis::codec::scripts::Scripts;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of round trips of a connection setup.
const CONNECT_ROUND_TRIPS: u32 = 5;
/// Size of the buffers through which the client library authenticates, in bytes.
const AUTHENTICATION_BUFFER_SIZE: usize = 4096;

enum ServerStream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Connects to a server, authenticates and loads the scripts. A replica is accepted: it serves reads.
pub(in crate::store::redis) async fn connect_with_scripts(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<PipelinedConnection, ExchangeError> {
    let connecting = async {
        let connection = connect_pipelined(server, address).await?;
        for reply in connection.send_all(&scripts.load_commands()).await? {
            reply.extract_error()?;
        }
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// As [`connect_with_scripts`], but fails unless the server is a master.
pub(in crate::store::redis) async fn connect_master(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<PipelinedConnection, ExchangeError> {
    let connecting = async {
        let connection = connect_with_scripts(server, address, scripts).await?;
        require_master(connection.send(&redis::cmd("ROLE")).await)?;
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// Whether a new connection to the server's address reaches a master.
pub(in crate::store::redis) async fn leads_to_master(
    server: &RedisNode,
    address: &RedisAddress,
) -> bool {
    let connecting = async {
        let connection = connect_pipelined(server, address).await?;
        require_master(connection.send(&redis::cmd("ROLE")).await)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await.is_ok()
}

/// As [`connect_master`], but fails if the cluster is down.
pub(in crate::store::redis) async fn connect_member(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<PipelinedConnection, ExchangeError> {
    let connecting = async {
        let connection = connect_master(server, address, scripts).await?;
        let state = connection.send(redis::cmd("CLUSTER").arg("INFO")).await;
        // Without the permission, the first request shows the state.
        if state.is_ok_and(|state| is_not_master(&state)) {
            return Err(ExchangeError::unreachable("CLUSTERDOWN"));
        }
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// Connects to a server to receive its push messages; fails for replicas unless standalone.
pub(in crate::store::redis) async fn connect_tracking(
    server: &RedisNode,
    address: &RedisAddress,
    push_sender: impl AsyncPushSender,
) -> Result<MultiplexedConnection, ExchangeError> {
    let connecting = async {
        let info = connection_info(address).set_protocol(ProtocolVersion::RESP3);
        let config = connection_config().set_push_sender(push_sender);
        let mut connection =
            connect_multiplexed(server, address.tls.as_ref(), &info, config).await?;
        if !matches!(address.topology, Topology::Standalone(_)) {
            require_master(redis::cmd("ROLE").query_async(&mut connection).await)?;
        }
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// Connects to a server of the store and authenticates, for a few commands of one caller.
pub(in crate::store::redis) async fn connect(
    server: &RedisNode,
    address: &RedisAddress,
) -> Result<MultiplexedConnection, ExchangeError> {
    connect_multiplexed(
        server,
        address.tls.as_ref(),
        &connection_info(address),
        connection_config(),
    )
    .await
}

/// Connects to a server of the store and authenticates, for the commands of all callers.
async fn connect_pipelined(
    server: &RedisNode,
    address: &RedisAddress,
) -> Result<PipelinedConnection, ExchangeError> {
    let info = connection_info(address);
    Ok(match open_stream(server, address.tls.as_ref()).await? {
        ServerStream::Plain(mut stream) => {
            authenticate(&mut stream, &info).await?;
            PipelinedConnection::spawn(stream)
        }
        ServerStream::Secured(mut stream) => {
            authenticate(&mut stream, &info).await?;
            PipelinedConnection::spawn(stream)
        }
    })
}

/// Connects to a Sentinel to send requests.
pub(in crate::store::redis) async fn connect_sentinel(
    node: &RedisNode,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<MultiplexedConnection, ExchangeError> {
    connect_multiplexed(
        node,
        tls,
        &sentinel_connection_info(sentinels),
        connection_config(),
    )
    .await
}

/// Connects to a Sentinel to receive its announcements.
pub(in crate::store::redis) async fn subscribe_sentinel(
    node: &RedisNode,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<PubSub, ExchangeError> {
    let info = sentinel_connection_info(sentinels);
    Ok(match open_stream(node, tls).await? {
        ServerStream::Plain(stream) => PubSub::new(&info, stream).await?,
        ServerStream::Secured(stream) => PubSub::new(&info, stream).await?,
    })
}

/// Runs a connection setup or a request with a timeout.
pub(in crate::store::redis) async fn with_timeout<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, ExchangeError>>,
) -> Result<T, ExchangeError> {
    let outcome =
        deadline::timeout_with_grace(timeout, CONNECT_ROUND_TRIPS * REPLY_ROUNDS, work).await;
    outcome.unwrap_or_else(|| Err(ExchangeError::unreachable("no response")))
}

fn connection_info(address: &RedisAddress) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(address.database);
    if let Some(username) = &address.username {
        info = info.set_username(username);
    }
    if let Some(password) = &address.password {
        info = info.set_password(password.expose_secret());
    }
    info
}

fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None)
}

fn sentinel_connection_info(sentinels: &Sentinels) -> RedisConnectionInfo {
    let info = RedisConnectionInfo::default();
    match &sentinels.password {
        Some(password) => info.set_password(password.expose_secret()),
        None => info,
    }
}

async fn connect_multiplexed(
    node: &RedisNode,
    tls: Option<&RedisTls>,
    info: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, ExchangeError> {
    match open_stream(node, tls).await? {
        ServerStream::Plain(stream) => spawn_driver(stream, info, config).await,
        ServerStream::Secured(stream) => spawn_driver(stream, info, config).await,
    }
}

async fn open_stream(
    node: &RedisNode,
    tls: Option<&RedisTls>,
) -> Result<ServerStream, ExchangeError> {
    let stream = TcpStream::connect((node.host.as_str(), node.port)).await;
    let stream = stream.map_err(redis::RedisError::from)?;
    stream.set_nodelay(true).map_err(redis::RedisError::from)?;
    Ok(match tls {
        None => ServerStream::Plain(stream),
        Some(files) => {
            ServerStream::Secured(Box::new(tls::connect_tls(node, files, stream).await?))
        }
    })
}

/// Spawns the driver of a connection, which ends with the last handle.
async fn spawn_driver<S>(
    stream: S,
    info: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, ExchangeError>
where
    S: Unpin + AsyncRead + AsyncWrite + Send + 'static,
{
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    tokio::spawn(driver);
    Ok(connection)
}

/// Has the client library authenticate, through a relay: it would not return the stream.
async fn authenticate<S>(stream: &mut S, info: &RedisConnectionInfo) -> Result<(), ExchangeError>
where
    S: Unpin + AsyncRead + AsyncWrite,
{
    let (library, mut relay) = duplex(AUTHENTICATION_BUFFER_SIZE);
    tokio::select! {
        outcome = MultiplexedConnection::new_with_config(info, library, connection_config()) => {
            outcome.map(|_| ()).map_err(ExchangeError::from)
        }
        outcome = copy_bidirectional(stream, &mut relay) => {
            outcome.map_err(redis::RedisError::from)?;
            Err(ExchangeError::unreachable("connection lost"))
        }
    }
}

/// Fails for a replica, which would serve reads and refuse writes, by the outcome of `ROLE`.
///
/// Without the permission for it, the first write shows it.
fn require_master(role: RedisResult<Value>) -> Result<(), ExchangeError> {
    if role.is_ok_and(|role| is_not_master(&role)) {
        return Err(ExchangeError::unreachable("READONLY"));
    }
    Ok(())
}

/// Whether a reply to `ROLE` is of a replica, or one to `CLUSTER INFO` reports a failed cluster.
pub(in crate::store::redis) fn is_not_master(reply: &Value) -> bool {
    match reply {
        Value::Array(role) => role.first() == Some(&Value::BulkString(b"slave".to_vec())),
        Value::BulkString(_) | Value::VerbatimString { .. } => {
            let state: String = redis::from_redis_value_ref(reply).unwrap_or_default();
            state.contains("cluster_state:fail")
        }
        _ => false,
    }
}
