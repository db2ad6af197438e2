//! When a gateway begins to accept connections, and leaves them to a successor.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::sockets::Sockets;
use super::upgrade::{self, Predecessor, Successor, UpgradeRequest};
use super::workers::Workers;
use super::{ReloadRequest, Services, background, reload, supervisor};
use crate::api::admin;
use crate::clock;
use crate::proxy::listener::ListenerState;

/// How long a new process waits for its store before an upgrade fails.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which it looks.
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// Where requests to the main loop are sent.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) reload: mpsc::Sender<ReloadRequest>,
    pub(super) upgrade: mpsc::Sender<UpgradeRequest>,
}

/// What a gateway begins to accept connections with.
pub(super) struct Opening<'g> {
    pub(super) services: &'g Services,
    pub(super) listeners: &'g [Arc<ListenerState>],
    pub(super) sockets: &'g Sockets,
    pub(super) workers: &'g mut Workers,
    pub(super) requests: Requests,
}

impl Opening<'_> {
    /// Begins at once, or in the place of a predecessor once the gateway is ready. `taken` are the
    /// positions of the predecessor's sockets that the gateway has taken.
    pub(super) async fn begin(
        self,
        predecessor: Option<&Predecessor>,
        taken: Vec<usize>,
    ) -> anyhow::Result<Accepting> {
        match predecessor {
            None => self.open().await,
            Some(predecessor) => self.replace(predecessor, taken).await,
        }
    }

    async fn open(mut self) -> anyhow::Result<Accepting> {
        let accepting = self.serve_operators()?;
        self.workers.accept_connections();
        self.prepare().await;
        Ok(accepting)
    }

    async fn replace(
        mut self,
        predecessor: &Predecessor,
        taken: Vec<usize>,
    ) -> anyhow::Result<Accepting> {
        self.prepare().await;
        self.wait_until_ready().await?;
        // Everything that can fail happens before the report.
        let accepting = self.serve_operators()?;
        predecessor.report_serving(taken)?;
        self.workers.accept_connections();
        predecessor.wait_until_released();
        Ok(accepting)
    }

    /// Starts the maintenance jobs, and waits for the workers and the store.
    async fn prepare(&mut self) {
        background::start(self.services, self.listeners);
        self.workers.wait_until_prepared().await;
        reload::record_load_time(self.services);
        // A gateway that reports to be ready has verified its store, if the store responds.
        self.services.sessions.wait_until_verified().await;
        if self.services.snapshot.load().settings.api_keys.is_some() {
            self.services.sessions.replay_api_keys_at_start().await;
        }
        self.services.readiness.set_serving();
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let state = self
            .services
            .admin_state(reload::trigger(self.requests.reload.clone()));
        let deadline = clock::monotonic() + READY_TIMEOUT;
        loop {
            match admin::readiness(&state).await {
                "ready" => return Ok(()),
                reason if clock::monotonic() > deadline => {
                    bail!("the new process is not ready: {reason}")
                }
                _ => tokio::time::sleep(READY_INTERVAL).await,
            }
        }
    }

    /// Serves the admin endpoints and the control socket on the current runtime, so that they still
    /// respond while the public listeners drain.
    fn serve_operators(&self) -> anyhow::Result<Accepting> {
        let services = self.services;
        let listener = services.boot.listeners.first();
        let limits = listener.context("there is no listener")?.limits.clone();
        let state = services.admin_state(reload::trigger(self.requests.reload.clone()));
        let admin = admin::serve(self.sockets.admin_listener()?, state, limits);
        let control = self.sockets.control_listener()?.map(|listener| {
            let served = upgrade::control::serve(listener, self.requests.upgrade.clone());
            served.context("the control socket cannot be served")
        });
        Ok(Accepting {
            admin: admin.context("the admin listener cannot be served")?,
            control: control.transpose()?,
        })
    }
}

/// The tasks that accept connections of operators.
pub(super) struct Accepting {
    admin: AbortHandle,
    control: Option<AbortHandle>,
}

impl Accepting {
    /// Leaves new connections to a successor that serves.
    pub(super) fn leave_to(
        &self,
        successor: Successor,
        services: &Services,
        listeners: &[Arc<ListenerState>],
        sockets: &mut Sockets,
    ) {
        sockets.hand_over(&successor.taken, listeners);
        if sockets.admin_is_handed_over() {
            self.admin.abort();
            services.readiness.set_replaced();
        } else {
            services.readiness.set_draining();
        }
        if let Some(control) = &self.control
            && sockets.control_is_handed_over()
        {
            control.abort();
        }
        supervisor::replaced_by(successor.process);
        successor.release();
    }
}
