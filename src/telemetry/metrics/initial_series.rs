//! Series that exist from the start, at 0.

use super::{
    AcmeOutcome, CacheName, CacheOutcome, CleanUpKind, CleanUpStatus, ConnectionRefusal, Metrics,
    ReloadStatus, StoreOperation, refusal_label,
};
use crate::auth::session::EndReason;
use crate::rejection::Refusal;
use crate::telemetry::logging::StandardStream;

/// Refusals of heads that never become requests.
const HEAD_REFUSALS: [Refusal; 4] = [
    Refusal::BadRequest,
    Refusal::HeadersTooLarge,
    Refusal::RequestTimeout,
    Refusal::MethodNotAllowed,
];

impl Metrics {
    pub(super) fn initialize_series(&self) {
        self.initialize_sign_in_series();
        self.initialize_forward_auth_series();
        self.auth.with_label_values(&["ok"]);
        let unauthenticated = Refusal::ALL
            .into_iter()
            .filter(|refusal| refusal.status() == http::StatusCode::UNAUTHORIZED);
        let others = [Refusal::AmbiguousCredentials, Refusal::StoreUnavailable];
        for refusal in unauthenticated.chain(others) {
            self.auth.with_label_values(&[refusal_label(refusal)]);
        }
        for reason in EndReason::ALL {
            self.sessions_ended.with_label_values(&[reason.as_str()]);
        }
        for status in ReloadStatus::ALL {
            self.config_reloads.with_label_values(&[status.as_str()]);
        }
        for outcome in AcmeOutcome::ALL {
            self.acme_orders.with_label_values(&[outcome.as_str()]);
        }
        for status in CleanUpStatus::ALL {
            self.cleanup_runs.with_label_values(&[status.as_str()]);
        }
        for kind in CleanUpKind::ALL {
            self.cleanup_removed.with_label_values(&[kind.as_str()]);
        }
        for cache in CacheName::ALL {
            for outcome in CacheOutcome::ALL {
                self.cache_series(*cache, *outcome);
            }
        }
        for operation in StoreOperation::ALL {
            self.store_operation_duration
                .with_label_values(&[operation.as_str()]);
        }
        for stream in StandardStream::ALL {
            self.log_lines_dropped.with_label_values(&[stream.as_str()]);
        }
        for reason in ConnectionRefusal::ALL {
            self.connections_refused
                .with_label_values(&[reason.as_str()]);
        }
        for refusal in HEAD_REFUSALS {
            self.connections_refused
                .with_label_values(&[refusal_label(refusal)]);
        }
    }
}
