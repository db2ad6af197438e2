//! Reports of the open connections of each session, by gateway.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::auth::session::SessionId;
use crate::telemetry::metrics::StoreOperation;

/// Validity of a report; the connections of a gateway that has crashed are not counted beyond it.
pub const REPORT_TTL: Duration = Duration::from_secs(30);

impl Store {
    /// Reports the number of connections that these sessions have open on one gateway.
    ///
    /// 0 withdraws a session's report. A report expires after [`REPORT_TTL`] unless it is repeated. The
    /// timeout applies to each step.
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
