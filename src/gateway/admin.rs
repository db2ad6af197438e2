//! The admin listener: plain axum on the background runtime, so that it still answers while the
//! public listeners drain.

use std::net::TcpListener as StdListener;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{mpsc, oneshot};

use super::{Parts, ReloadRequest};
use crate::api::Refused;
use crate::api::admin::{self, Reload, Reloaded};
use crate::proxy::respond;

/// Starts serving on the current runtime.
pub(super) fn serve(
    socket: StdListener,
    parts: &Parts,
    reload: mpsc::Sender<ReloadRequest>,
) -> anyhow::Result<()> {
    let desk = admin::Desk {
        live: Arc::clone(&parts.live),
        accounts: parts.accounts.clone(),
        store: parts.store.clone(),
        metrics: Arc::clone(&parts.metrics),
        events: parts.events.clone(),
        live_of: super::live_of(parts),
        readiness: parts.readiness.clone(),
        sessions_on_outage: parts.boot.store.sessions_on_outage,
        own_names: Arc::from([]),
        counter: crate::admission::counter_of_texts,
        upstreams: {
            let current = Arc::clone(&parts.current);
            Arc::new(move || current.load().upstreams.describe())
        },
        reload: asks(reload),
    };
    let router = router(desk);
    let listener =
        tokio::net::TcpListener::from_std(socket).context("the admin listener cannot be served")?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(())
}

/// The admin endpoints whole: refusals have the body that every refusal of the gateway has.
pub(crate) fn router(desk: admin::Desk) -> Router {
    admin::router(desk).layer(axum::middleware::from_fn(render))
}

/// Turns a call into a request to the loop that reloads, one at a time.
fn asks(reload: mpsc::Sender<ReloadRequest>) -> Arc<Reload> {
    Arc::new(move || {
        let reload = reload.clone();
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let gone = || Reloaded::Rejected(vec!["the gateway is shutting down".to_owned()]);
            if reload.send(answer).await.is_err() {
                return gone();
            }
            outcome.await.unwrap_or_else(|_| gone())
        })
    })
}

async fn render(request: Request, next: Next) -> Response {
    let accept = request.headers().clone();
    let mut response = next.run(request).await;
    let Some(refused) = response.extensions_mut().remove::<Refused>() else {
        return response;
    };
    let (mut head, _) = response.into_parts();
    let answer = respond::Answer {
        fields: refused.fields,
        retry_after: refused.retry_after,
        ..refused.refusal.into()
    };
    let body = respond::render(&answer, &accept, &mut head.headers);
    head.status = refused.refusal.status();
    Response::from_parts(head, Body::from(body))
}
