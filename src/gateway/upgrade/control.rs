//! The control socket, by which `portcullis upgrade` reaches the running gateway. Only the gateway's
//! user and root can use it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rustix::process::geteuid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::control_message::{MAX_REQUEST, Reply, Request};
use super::{Outcome, UpgradeRequest};

/// Connections at once.
const MAX_CONNECTIONS: usize = 8;
/// How long a request, or the reading of its reply, may take.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Rejections that are logged at once.
const LOG_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// Interval at which another one is.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The listening control socket.
#[derive(Debug)]
pub(in crate::gateway) struct ControlSocket {
    listener: StdListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket in a directory that only this user can use. Replaces one that no process
    /// listens to.
    pub(in crate::gateway) fn bind(path: &Path) -> anyhow::Result<ControlSocket> {
        let bound = prepare(path).and_then(|()| {
            let listener = StdListener::bind(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        Ok(ControlSocket {
            listener: bound.with_context(|| format!("admin.control_socket: {}", path.display()))?,
            path: path.to_owned(),
        })
    }

    /// Takes over a socket that the predecessor has bound.
    pub(super) fn adopt(listener: StdListener, path: PathBuf) -> ControlSocket {
        ControlSocket { listener, path }
    }

    pub(in crate::gateway) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::gateway) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(in crate::gateway) fn try_clone(&self) -> io::Result<StdListener> {
        self.listener.try_clone()
    }

    /// Removes the file, so that a later process finds none.
    pub(in crate::gateway) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was not removed");
        }
    }
}

/// Prepares the directory, and removes the socket of a process that has ended.
fn prepare(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("it is not a file in a directory")?;
    if !folder.exists() {
        DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create the directory {}", folder.display()))?;
    }
    let own = geteuid().as_raw();
    let metadata = std::fs::metadata(folder)
        .with_context(|| format!("cannot read the directory {}", folder.display()))?;
    ensure!(
        metadata.uid() == own && metadata.mode() & 0o077 == 0,
        "the directory {} must belong to user {own} and have mode 0700; it belongs to user {} and has \
         mode {:04o}",
        folder.display(),
        metadata.uid(),
        metadata.mode() & 0o7777,
    );
    let Ok(existing) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    ensure!(
        existing.file_type().is_socket() && existing.uid() == own,
        "the path is taken by a file that is not a socket of user {own}"
    );
    match StdStream::connect(path) {
        Ok(_) => bail!("another gateway listens there"),
        Err(_) => std::fs::remove_file(path).context("an old socket cannot be removed"),
    }
}

/// Serves requests on the current runtime.
///
/// # Errors
/// The runtime does not take the socket.
pub(in crate::gateway) fn serve(
    listener: StdListener,
    upgrades: mpsc::Sender<UpgradeRequest>,
) -> io::Result<AbortHandle> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    Ok(tokio::spawn(accept(listener, upgrades)).abort_handle())
}

/// Logs rejections, of which a peer can cause any number.
struct RejectionLog(DefaultDirectRateLimiter);

impl RejectionLog {
    fn new() -> RejectionLog {
        let quota = Quota::with_period(LOG_INTERVAL).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        RejectionLog(RateLimiter::direct(quota.allow_burst(LOG_BURST)))
    }

    fn record(&self, reason: &str) {
        if self.0.check().is_ok() {
            tracing::warn!("a request to the control socket was rejected: {reason}");
        }
    }
}

async fn accept(listener: UnixListener, upgrades: mpsc::Sender<UpgradeRequest>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let log = Arc::new(RejectionLog::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the control socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            log.record("there are too many at once");
            continue;
        };
        let (upgrades, log) = (upgrades.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            let _slot = slot;
            serve_connection(stream, upgrades, &log).await;
        });
    }
}

/// Serves one request.
async fn serve_connection(
    mut stream: UnixStream,
    upgrades: mpsc::Sender<UpgradeRequest>,
    log: &RejectionLog,
) {
    let request = match authorize(&stream) {
        Ok(()) => read_request(&mut stream).await,
        Err(reason) => Err(reason),
    };
    let reply = match request {
        Ok(request) => Reply::from(perform(request, upgrades).await),
        Err(reason) => {
            log.record(&reason);
            Reply::Failed {
                errors: vec![reason],
            }
        }
    };
    // The requester may have disconnected.
    let _ = timeout(MESSAGE_TIMEOUT, stream.write_all(&reply.to_bytes())).await;
}

/// Accepts this user and root.
fn authorize(stream: &UnixStream) -> Result<(), String> {
    let peer = stream.peer_cred();
    let peer = peer.map_err(|error| format!("the user is unknown: {error}"))?;
    match peer.uid() {
        0 => Ok(()),
        uid if uid == geteuid().as_raw() => Ok(()),
        uid => Err(format!("user {uid} may not control this gateway")),
    }
}

async fn read_request(stream: &mut UnixStream) -> Result<Request, String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_REQUEST);
    let read = timeout(MESSAGE_TIMEOUT, reader.read_until(b'\n', &mut line)).await;
    match read {
        Err(_) => Err("no request was sent in time".to_owned()),
        Ok(Err(error)) => Err(format!("the request could not be read: {error}")),
        Ok(Ok(_)) => Request::parse(&line),
    }
}

async fn perform(request: Request, upgrades: mpsc::Sender<UpgradeRequest>) -> Outcome {
    let gone = || Err(vec!["the gateway is shutting down".to_owned()]);
    let Request::Upgrade { force } = request;
    let (reply, outcome) = oneshot::channel();
    let request = UpgradeRequest {
        force,
        reply: Some(reply),
    };
    if upgrades.send(request).await.is_err() {
        return gone();
    }
    outcome.await.unwrap_or_else(|_| gone())
}
