#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split};
use tokio::net::UnixStream;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::codec::FramedRead;

use super::*;
use crate::store::StoreError;
use crate::store::redis::links::exchange_error::ExchangeError;

mod any_replies;

/// A connection, and the server's side of its stream.
fn connect(buffer: usize) -> (PipelinedConnection, DuplexStream) {
    let (stream, server) = duplex(buffer);
    (PipelinedConnection::spawn(stream), server)
}

fn echo(text: &str) -> Cmd {
    let mut command = redis::cmd("ECHO");
    command.arg(text);
    command
}

fn text(reply: Value) -> String {
    redis::from_redis_value(reply).unwrap()
}

/// Lets the driver run.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

/// Reads what has been written.
async fn written(server: &mut DuplexStream) -> String {
    settle().await;
    let mut bytes = vec![0; 4096];
    let count = server.read(&mut bytes).now_or_never().unwrap().unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

/// Echoes each command's second word until the connection ends.
async fn serve_echo(server: impl AsyncRead + AsyncWrite) {
    let (reader, mut writer) = split(server);
    let mut commands = FramedRead::new(reader, redis::ValueCodec::default());
    while let Some(Ok(command)) = commands.next().await {
        let words: Vec<String> = redis::from_redis_value(command).unwrap();
        let reply = format!("${}\r\n{}\r\n", words[1].len(), words[1]);
        writer.write_all(reply.as_bytes()).await.unwrap();
    }
}

async fn expect_unreachable(outcome: impl Future<Output = RedisResult<Value>>) {
    let outcome = timeout(Duration::from_secs(5), outcome).await.unwrap();
    let error = ExchangeError::from(outcome.unwrap_err());
    assert_eq!((error.error, error.fatal), (StoreError::Unreachable, true));
}

#[tokio::test]
async fn replies_may_be_split_at_every_byte() {
    let replies = "$-1\r\n:-12\r\n$5\r\na\r\nb\0\r\n*3\r\n:1\r\n*2\r\n$0\r\n\r\n+OK\r\n*0\r\n\
                   -WRONGTYPE it is\r\n$3\r\nend\r\n";
    let mut commands = redis::pipe();
    for n in 0..5 {
        commands.cmd("ECHO").arg(n);
    }
    let mut expected = None;
    for cut in 0..=replies.len() {
        let (connection, mut server) = connect(4096);
        let feed = async {
            settle().await;
            let (first, second) = replies.split_at(cut);
            for part in [first, second] {
                server.write_all(part.as_bytes()).await.unwrap();
                settle().await;
            }
        };
        let last = echo("end");
        let (all, last, ()) =
            tokio::join!(connection.send_all(&commands), connection.send(&last), feed);
        let all = all.unwrap();
        assert_eq!(all[1], Value::Int(-12));
        assert_eq!(all[2], Value::BulkString(b"a\r\nb\0".to_vec()));
        assert!(matches!(&all[4], Value::ServerError(error) if error.code() == "WRONGTYPE"));
        assert_eq!(text(last.unwrap()), "end");
        assert_eq!(*expected.get_or_insert_with(|| all.clone()), all, "{cut}");
    }
}

#[tokio::test]
async fn replies_to_a_caller_that_is_gone_reach_no_other() {
    let (connection, mut server) = connect(4096);
    let (first, gone, last) = (echo("1"), echo("2"), echo("3"));
    let mut several = redis::pipe();
    several.cmd("ECHO").arg("4").cmd("ECHO").arg("5");
    let mut first = std::pin::pin!(connection.send(&first));
    let mut last = std::pin::pin!(connection.send(&last));
    assert!((&mut first).now_or_never().is_none());
    {
        let mut gone = Box::pin(connection.send(&gone));
        let mut several = Box::pin(connection.send_all(&several));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut several).now_or_never().is_none());
        assert!((&mut last).now_or_never().is_none());
        let commands = written(&mut server).await;
        assert_eq!(commands.matches("ECHO").count(), 5, "{commands}");
        server.write_all(b"$1\r\n1\r\n").await.unwrap();
        settle().await;
        drop(gone);
        server.write_all(b"$1\r\n2\r\n$1\r\n4\r\n").await.unwrap();
        settle().await;
    }
    server.write_all(b"$1\r\n5\r\n$1\r\n3\r\n").await.unwrap();
    assert_eq!(text(first.await.unwrap()), "1");
    assert_eq!(text(last.await.unwrap()), "3");
    assert_eq!(connection.shared.state().queue.request_count(), 0);
}

#[tokio::test]
async fn commands_of_callers_that_are_gone_are_not_sent() {
    let (connection, mut server) = connect(4096);
    let (first, gone, last) = (echo("1"), echo("2"), echo("3"));
    let mut first = std::pin::pin!(connection.send(&first));
    let mut last = std::pin::pin!(connection.send(&last));
    assert!((&mut first).now_or_never().is_none());
    assert!(connection.send(&gone).now_or_never().is_none());
    assert!((&mut last).now_or_never().is_none());
    let commands = written(&mut server).await;
    assert!(!commands.contains("$1\r\n2\r\n"), "{commands}");
    server.write_all(b"$1\r\n1\r\n$1\r\n3\r\n").await.unwrap();
    assert_eq!(text(first.await.unwrap()), "1");
    assert_eq!(text(last.await.unwrap()), "3");
}

#[tokio::test]
async fn violation_of_the_protocol_ends_the_connection() {
    for violation in [
        "?\r\n",
        ":none\r\n",
        "$2\r\nabc\r\n",
        ">2\r\n+invalidate\r\n*0\r\n",
        // One reply more than commands.
        "+1\r\n+2\r\n+3\r\n",
    ] {
        let (connection, mut server) = connect(4096);
        let (first, second) = (echo("1"), echo("2"));
        let (first, second) = (connection.send(&first), connection.send(&second));
        let violate = async {
            settle().await;
            server.write_all(violation.as_bytes()).await.unwrap();
        };
        let (first, second, ()) = tokio::join!(first, second, violate);
        if violation.starts_with('+') {
            assert_eq!(first.unwrap(), Value::SimpleString("1".to_owned()));
            assert_eq!(second.unwrap(), Value::SimpleString("2".to_owned()));
        } else {
            expect_unreachable(async { first }).await;
            expect_unreachable(async { second }).await;
        }
        expect_unreachable(connection.send(&echo("3"))).await;
        written(&mut server).await;
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "{violation}");
    }
}

#[tokio::test]
async fn end_of_the_connection_fails_what_is_pending() {
    let (connection, mut server) = connect(4096);
    let commands: Vec<Cmd> = (0..3).map(|n| echo(&n.to_string())).collect();
    let pending = join_all(commands.iter().map(|command| connection.send(command)));
    let close = async {
        settle().await;
        // The second reply is incomplete.
        server.write_all(b"$1\r\n0\r\n$1\r\n").await.unwrap();
        drop(server);
    };
    let (outcomes, ()) = tokio::join!(pending, close);
    let mut outcomes = outcomes.into_iter();
    assert_eq!(text(outcomes.next().unwrap().unwrap()), "0");
    for outcome in outcomes {
        expect_unreachable(async { outcome }).await;
    }
}

#[tokio::test]
async fn end_of_the_driver_fails_what_is_pending() {
    let (connection, _server) = connect(4096);
    let command = echo("1");
    let abort = async {
        settle().await;
        connection.driver.abort();
    };
    let (outcome, ()) = tokio::join!(connection.send(&command), abort);
    expect_unreachable(async { outcome }).await;
}

#[tokio::test]
async fn dropped_connection_closes_the_stream() {
    let (connection, mut server) = connect(4096);
    drop(connection);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn server_that_stops_reading_does_not_grow_the_buffers() {
    const COMMAND: usize = 16 << 10;
    const CALLERS: usize = 2400;
    let (connection, server) = connect(64 << 10);
    let connection = Arc::new(connection);
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move {
                let argument = format!("{n}").repeat(COMMAND / 4);
                // Some give up while the server does not read.
                let command = echo(&argument);
                let reply = connection.send(&command);
                let reply = match n % 3 {
                    0 => timeout(Duration::from_millis(50), reply).await.ok()?,
                    _ => reply.await,
                };
                assert_eq!(text(reply.unwrap()), argument);
                Some(())
            })
        })
        .collect();
    let full = async {
        while !connection.shared.state().queue.is_full() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), full).await.unwrap();
    // Time for callers to give up.
    sleep(Duration::from_millis(200)).await;
    let unsent = connection.shared.state().queue.unsent_bytes();
    assert!(unsent <= (8 << 20) + 2 * COMMAND, "{unsent}");
    tokio::spawn(serve_echo(server));
    let outcomes = timeout(Duration::from_secs(30), join_all(callers)).await;
    let outcomes = outcomes.unwrap().into_iter();
    let replied = outcomes.filter_map(|outcome| outcome.unwrap()).count();
    assert!(replied >= CALLERS * 2 / 3, "{replied}");
    assert_eq!(connection.shared.state().queue.request_count(), 0);
}

/// A stream that counts writes.
struct CountingStream(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn commands_of_one_turn_are_one_write() {
    let writes = Arc::new(AtomicUsize::new(0));
    let (stream, server) = duplex(1 << 20);
    let connection = PipelinedConnection::spawn(CountingStream(stream, Arc::clone(&writes)));
    let connection = Arc::new(connection);
    tokio::spawn(serve_echo(server));
    for round in 1..=3 {
        let callers = (0..100).map(|n| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move {
                let reply = connection.send(&echo(&n.to_string())).await;
                assert_eq!(text(reply.unwrap()), n.to_string());
            })
        });
        for outcome in join_all(callers).await {
            outcome.unwrap();
        }
        assert_eq!(writes.load(Ordering::Relaxed), round);
    }
}

/// A real Redis on a Unix socket.
struct RedisServer {
    process: Child,
    folder: tempfile::TempDir,
}

impl RedisServer {
    async fn start() -> (RedisServer, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]);
        command.arg(&socket).current_dir(folder.path());
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let server = RedisServer { process, folder };
        let started = crate::clock::monotonic();
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => return (server, stream),
                Err(error) => assert!(started.elapsed().as_secs() < 10, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn ten_thousand_concurrent_commands_receive_their_own_replies() {
    let (server, stream) = RedisServer::start().await;
    assert!(server.folder.path().exists());
    let connection = Arc::new(PipelinedConnection::spawn(stream));
    let callers = (0..10_000_usize).map(|n| {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move {
            let mut argument = n.to_string();
            // Replies of every size, up to several reads.
            write!(argument, "{:.<1$}", "", n * 7 % 2000).unwrap();
            let command = echo(&argument);
            let reply = connection.send(&command);
            if n % 5 == 0 {
                let _ = timeout(Duration::from_micros(n as u64), reply).await;
            } else if n % 7 == 0 {
                let mut commands = redis::pipe();
                commands
                    .add_command(echo("first"))
                    .add_command(echo(&argument));
                commands.cmd("NONE");
                let replies = connection.send_all(&commands).await.unwrap();
                let [first, second, none] = <[Value; 3]>::try_from(replies).unwrap();
                assert_eq!([text(first), text(second)], ["first".to_owned(), argument]);
                assert!(matches!(none, Value::ServerError(_)));
            } else {
                assert_eq!(text(reply.await.unwrap()), argument);
            }
        })
    });
    for outcome in timeout(Duration::from_secs(30), join_all(callers))
        .await
        .unwrap()
    {
        outcome.unwrap();
    }
    let error = connection.send(&redis::cmd("NONE")).await.unwrap_err();
    assert_eq!(error.code(), Some("ERR"));
}
