//! Connection setup: TCP, TLS if configured, authentication, and checks before the first use.

use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, Value};
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;

use super::exchange_error::ExchangeError;
use super::tls;
use crate::settings::{RedisAddress, RedisNode, RedisTls, Sentinels, Topology};
use crate::store::deadline;
use crate::store::deadline::REPLY_ROUNDS;
use crate::store::redis::codec::scripts::Scripts;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of round trips of a connection setup.
const CONNECT_ROUND_TRIPS: u32 = 5;
/// Number of requests that may wait to be written.
const PIPELINE_BUFFER_SIZE: usize = 16_384;

enum ServerStream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Connects to a server, authenticates and loads the scripts. A replica is accepted: it serves reads.
pub(in crate::store::redis) async fn connect_with_scripts(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, ExchangeError> {
    let connecting = async {
        let mut connection = connect(server, address).await?;
        let _: Value = scripts.load_commands().query_async(&mut connection).await?;
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// As [`connect_with_scripts`], but fails unless the server is a master.
pub(in crate::store::redis) async fn connect_master(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, ExchangeError> {
    let connecting = async {
        let mut connection = connect_with_scripts(server, address, scripts).await?;
        require_master(&mut connection).await?;
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
        let mut connection = connect(server, address).await?;
        require_master(&mut connection).await
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await.is_ok()
}

/// As [`connect_master`], but fails if the cluster is down.
pub(in crate::store::redis) async fn connect_member(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, ExchangeError> {
    let connecting = async {
        let mut connection = connect_master(server, address, scripts).await?;
        let mut command = redis::cmd("CLUSTER");
        let state = command.arg("INFO").query_async::<Value>(&mut connection);
        // Without the permission, the first request shows the state.
        if state.await.is_ok_and(|state| is_not_master(&state)) {
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
            require_master(&mut connection).await?;
        }
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// Connects to a server of the store and authenticates.
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
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER_SIZE)
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
    // Unconstrained: otherwise the driver yields after 128 requests, and on a busy runtime the last
    // of thousands of concurrent requests would time out.
    tokio::spawn(unconstrained(driver));
    Ok(connection)
}

/// Fails for a replica, which would serve reads and refuse writes.
///
/// Without the permission for `ROLE`, the first write shows it.
async fn require_master(connection: &mut MultiplexedConnection) -> Result<(), ExchangeError> {
    let role = redis::cmd("ROLE").query_async::<Value>(connection).await;
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
