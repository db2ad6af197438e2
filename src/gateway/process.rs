//! The process of a gateway: signals, the background runtime, and the limit of open files.

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::settings::Boot;

/// Descriptors of other uses than connections: store and database sockets, files, logs.
const OTHER_DESCRIPTORS: u64 = 256;

/// A process that is about to serve.
pub struct Process {
    pub(super) background: Runtime,
    hangup: Signal,
    upgrade: Signal,
}

/// The signals that a running gateway handles.
pub(super) struct Signals {
    pub(super) hangup: Signal,
    /// SIGUSR2.
    pub(super) upgrade: Signal,
    pub(super) termination: Termination,
}

/// SIGTERM and SIGINT.
pub(super) struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// Waits for a signal.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Process {
    /// Starts the runtime, and keeps SIGHUP and SIGUSR2 for later: until they are caught they end
    /// the process.
    ///
    /// # Errors
    /// The operating system gives no thread or no signals.
    pub fn start() -> anyhow::Result<Process> {
        let background = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("background")
            .enable_all()
            .build()
            .context("a runtime could not be started")?;
        let hangup = catch_signal(&background, SignalKind::hangup())?;
        let upgrade = catch_signal(&background, SignalKind::user_defined2())?;
        Ok(Process {
            background,
            hangup,
            upgrade,
        })
    }

    /// Catches the termination signals too. From now on they start a drain; before, they end the
    /// process, since there is nothing to drain.
    pub(super) fn catch_signals(self) -> anyhow::Result<(Runtime, Signals)> {
        let termination = Termination {
            terminate: catch_signal(&self.background, SignalKind::terminate())?,
            interrupt: catch_signal(&self.background, SignalKind::interrupt())?,
        };
        let signals = Signals {
            hangup: self.hangup,
            upgrade: self.upgrade,
            termination,
        };
        Ok((self.background, signals))
    }
}

fn catch_signal(runtime: &Runtime, kind: SignalKind) -> anyhow::Result<Signal> {
    let _entered = runtime.enter();
    signal(kind).context("signals cannot be received")
}

/// The machine's host name, in lower case.
pub(super) fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    Some(name.to_ascii_lowercase())
}

/// Raises the limit of open files as far as permitted, and reports what it allows.
pub(super) fn raise_open_files(boot: &Boot) {
    let limit = match raise_soft_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            return;
        }
    };
    // Front proxies have few connections.
    let connections = boot.listeners.iter().map(|one| one.limits.connections);
    let connections = connections.fold(0_u64, |sum, one| sum.saturating_add(one as u64));
    let allowed = allowed_connections(limit);
    if allowed >= connections {
        tracing::info!(
            limit,
            connections,
            "the limit of open files covers the configured connections"
        );
    } else {
        tracing::warn!(
            limit,
            connections,
            "the limit of open files covers about {allowed} connections, fewer than the listeners \
             allow: raise it (LimitNOFILE of systemd, --ulimit of a container)"
        );
    }
}

/// Raises the soft limit to the hard one.
fn raise_soft_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// A forwarded request may need a second descriptor, toward its upstream.
fn allowed_connections(limit: u64) -> u64 {
    limit.saturating_sub(OTHER_DESCRIPTORS) / 2
}
