//! Active health checks, with responses that a test sets.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use http::StatusCode;

use super::*;
use crate::settings::UpstreamHost;

/// Responds to every probe with one status, or, with 0, not at all.
struct Responses {
    status: Arc<AtomicU16>,
    probes: Arc<AtomicUsize>,
}

impl Responses {
    fn new() -> (Responses, SendProbe) {
        let responses = Responses {
            status: Arc::new(AtomicU16::new(200)),
            probes: Arc::default(),
        };
        let (status, probes) = (responses.status.clone(), responses.probes.clone());
        let send_probe: SendProbe = Arc::new(move |probe| {
            assert_eq!(
                (probe.authority, probe.path),
                ("orders.example", "/healthz")
            );
            probes.fetch_add(1, Ordering::SeqCst);
            let status = StatusCode::from_u16(status.load(Ordering::SeqCst));
            Box::pin(async move {
                match status {
                    Ok(status) => Ok(status),
                    Err(_) => std::future::pending().await,
                }
            })
        });
        (responses, send_probe)
    }
}

#[tokio::test(start_paused = true)]
async fn health_checks_remove_and_restore_a_server() {
    let (responses, send_probe) = Responses::new();
    let mut settings = checked(unreachable_servers(&[1]));
    settings.host = UpstreamHost::Name("orders.example".to_owned());
    let orders = fixtures::start(settings, &send_probe).await;
    for failing in [500, 404, 302, 0] {
        responses.status.store(failing, Ordering::SeqCst);
        wait_until_available(&orders, false).await;
        assert!(orders.choose(None, &[]).is_none());
        responses.status.store(204, Ordering::SeqCst);
        wait_until_available(&orders, true).await;
    }
    assert!(responses.probes.load(Ordering::SeqCst) >= 16);
}
