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

use super::exchange_error::ExchangeError;
use super::tls;
use crate::settings::{RedisAddress, RedisNode, RedisTls, Sentinels, Topology};
use crate::store::deadline;
use crate::store::deadline::REPLY_ROUNDS;
use crate::store::redis::codec::scripts::Scripts;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many answers come one after the other until a connection is made.
const CONNECT_ROUND_TRIPS: u32 = 5;
/// How many questions may wait to be written.
const PIPELINE_BUFFER_SIZE: usize = 16_384;

enum ServerStream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Connects to a server of the store, signs in and loads the scripts. A replica will do: it serves reads.
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

/// As [`store`], to a master: there is one elsewhere, if not here.
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

/// As [`master`], of a cluster that is whole.
pub(in crate::store::redis) async fn connect_member(
    server: &RedisNode,
    address: &RedisAddress,
    scripts: &Scripts,
) -> Result<MultiplexedConnection, ExchangeError> {
    let connecting = async {
        let mut connection = connect_master(server, address, scripts).await?;
        let mut question = redis::cmd("CLUSTER");
        let state = question.arg("INFO").query_async::<Value>(&mut connection);
        // One that may not be asked shows at the first question how things stand.
        if state.await.is_ok_and(|state| is_not_master(&state)) {
            return Err(ExchangeError::unreachable("CLUSTERDOWN"));
        }
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// Connects to a server of the store, to receive its changes; to a master, where there is one elsewhere
/// if not here.
pub(in crate::store::redis) async fn connect_tracking(
    server: &RedisNode,
    address: &RedisAddress,
    told: impl AsyncPushSender,
) -> Result<MultiplexedConnection, ExchangeError> {
    let connecting = async {
        let who = connection_info(address).set_protocol(ProtocolVersion::RESP3);
        let config = connection_config().set_push_sender(told);
        let mut connection =
            connect_multiplexed(server, address.tls.as_ref(), &who, config).await?;
        if !matches!(address.topology, Topology::Standalone(_)) {
            require_master(&mut connection).await?;
        }
        Ok(connection)
    };
    with_timeout(CONNECT_TIMEOUT, connecting).await
}

/// Connects to a server of the store and signs in.
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

/// Connects to a Sentinel, for questions.
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

/// Connects to a Sentinel, for what it announces.
pub(in crate::store::redis) async fn subscribe_sentinel(
    node: &RedisNode,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<PubSub, ExchangeError> {
    let who = sentinel_connection_info(sentinels);
    Ok(match open_stream(node, tls).await? {
        ServerStream::Plain(stream) => PubSub::new(&who, stream).await?,
        ServerStream::Secured(stream) => PubSub::new(&who, stream).await?,
    })
}

/// Waits for no longer than this.
pub(in crate::store::redis) async fn with_timeout<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, ExchangeError>>,
) -> Result<T, ExchangeError> {
    let outcome =
        deadline::timeout_with_grace(patience, CONNECT_ROUND_TRIPS * REPLY_ROUNDS, work).await;
    outcome.unwrap_or_else(|| Err(ExchangeError::unreachable("no answer")))
}

fn connection_info(address: &RedisAddress) -> RedisConnectionInfo {
    let mut who = RedisConnectionInfo::default().set_db(address.database);
    if let Some(username) = &address.username {
        who = who.set_username(username);
    }
    if let Some(password) = &address.password {
        who = who.set_password(password.expose_secret());
    }
    who
}

fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER_SIZE)
}

fn sentinel_connection_info(sentinels: &Sentinels) -> RedisConnectionInfo {
    let who = RedisConnectionInfo::default();
    match &sentinels.password {
        Some(password) => who.set_password(password.expose_secret()),
        None => who,
    }
}

async fn connect_multiplexed(
    node: &RedisNode,
    tls: Option<&RedisTls>,
    who: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, ExchangeError> {
    match open_stream(node, tls).await? {
        ServerStream::Plain(stream) => spawn_driver(stream, who, config).await,
        ServerStream::Secured(stream) => spawn_driver(stream, who, config).await,
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

/// Speaks over a stream, by a task that ends with the last handle.
async fn spawn_driver<S>(
    stream: S,
    who: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, ExchangeError>
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
async fn require_master(connection: &mut MultiplexedConnection) -> Result<(), ExchangeError> {
    let role = redis::cmd("ROLE").query_async::<Value>(connection).await;
    if role.is_ok_and(|role| is_not_master(&role)) {
        return Err(ExchangeError::unreachable("READONLY"));
    }
    Ok(())
}

/// Whether an answer to `ROLE` is that of a replica, or one to `CLUSTER INFO` that of a server which
/// is cut off from its cluster.
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
