//! Reports of open connections: a hash per session, a field per gateway, `<count> <valid until>`.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::sessions::SESSIONS_PER_STEP;
use crate::auth::session::{Millis, SessionId};
use crate::store::StoreError;
use crate::store::open_connections::REPORT_TTL;
use crate::store::redis::Redis;
use crate::store::redis::links::exchange_error;

impl Redis {
    pub(in crate::store) async fn report_open_connections(
        &self,
        gateway: &str,
        counts: &[(SessionId, u64)],
        deadline: Duration,
    ) -> Result<(), StoreError> {
        for step in counts.chunks(SESSIONS_PER_STEP) {
            let call = |(id, count): &(SessionId, u64)| {
                let call = self.scripts.report_live.call(&[self.keys.live(id)]);
                call.arg(gateway)
                    .arg(count)
                    .arg(REPORT_TTL.as_secs() * 1000)
            };
            let replies = self.run_all(step.iter().map(call).collect());
            for reply in self.with_deadline(deadline, replies).await? {
                exchange_error::reject_server_error(reply)?;
            }
        }
        Ok(())
    }
}

/// Sums the valid reports in a reply to `HGETALL`; malformed ones are ignored.
pub(in crate::store::redis) fn sum_reports(reports: &Value, now: Millis) -> u64 {
    let reports: HashMap<String, String> = redis::from_redis_value_ref(reports).unwrap_or_default();
    let counts = reports.values().filter_map(|report| {
        let (count, until) = report.split_once(' ')?;
        let until: Millis = until.parse().ok()?;
        count.parse::<u64>().ok().filter(|_| now < until)
    });
    counts.fold(0, u64::saturating_add)
}
