//! The orders that this gateway makes at the moment, one task for each account.

use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};

use super::orders::Orders;
use super::wanted::WantedFromAccount;
use crate::pipeline::snapshot::Snapshot;

/// Running orders, which end with this value.
#[derive(Default)]
pub(super) struct RunningOrders {
    tasks: JoinSet<()>,
    groups: Vec<(Arc<WantedFromAccount>, AbortHandle)>,
}

impl RunningOrders {
    /// Orders what is due with an account, unless an order that it must not overtake is running.
    pub(super) fn start(
        &mut self,
        orders: &Arc<Orders>,
        group: WantedFromAccount,
        snapshot: &Arc<Snapshot>,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.groups.retain(|(_, task)| !task.is_finished());
        if self.groups.iter().any(|(one, _)| excludes(one, &group)) {
            return;
        }
        let group = Arc::new(group);
        let (orders, snapshot) = (Arc::clone(orders), Arc::clone(snapshot));
        let ordered = Arc::clone(&group);
        let task = self.tasks.spawn(async move {
            orders.order(&ordered, &snapshot.settings).await;
        });
        self.groups.push((group, task));
    }
}

/// Whether two orders must not run at once. The responses to two challenges for one domain would replace
/// each other.
fn excludes(one: &WantedFromAccount, other: &WantedFromAccount) -> bool {
    let mut domains = one.domains.iter();
    let is_shared = domains.any(|one| {
        let mut others = other.domains.iter();
        others.any(|other| other.domain == one.domain)
    });
    one.account == other.account || is_shared
}
