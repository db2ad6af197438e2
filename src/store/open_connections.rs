//! How many connections each session has open, as every gateway of the fleet tells it.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::auth::session::SessionId;
use crate::telemetry::metrics::StoreOperation;

/// How long a report counts: a gateway that has died is not counted for longer.
pub const REPORT_TTL: Duration = Duration::from_secs(30);

impl Store {
    /// Tells how many connections these sessions have open on one gateway; 0 takes a session's
    /// report back. What is not told again within [`REPORT_TTL`] is forgotten. Each step has the
    /// deadline, not the whole.
    pub async fn report_open_connections(
        &self,
        gateway: &str,
        counts: &[(SessionId, u64)],
    ) -> Result<(), StoreError> {
        if counts.is_empty() {
            return Ok(());
        }
        self.measured_steps(StoreOperation::ReportLive, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.report_open_connections(gateway, counts);
                    Ok(())
                }
                Engine::Redis(redis) => {
                    let deadline = self.shared.timeout;
                    redis
                        .report_open_connections(gateway, counts, deadline)
                        .await
                }
            }
        })
        .await
    }
}
