//! Commands that act on users and sessions, against the configured database and store.

use std::sync::Arc;

use anyhow::Context as _;

use crate::accounts::Accounts;
use crate::directory::Directory;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::store::Store;

/// Opens what the settings name and tells a story with it. The process's own metrics go nowhere; its
/// events go to the store.
pub(super) fn with_accounts<T>(
    settings: Settings,
    story: impl AsyncFnOnce(Accounts, Settings) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be started")?;
    runtime.block_on(async {
        let metrics = Arc::new(Metrics::new().context("the metrics could not be set up")?);
        let store = Store::open(&settings.boot.store, Arc::clone(&metrics)).link();
        let directory = Directory::open(&settings.boot.database)
            .await
            .context("the database could not be opened")?;
        let events = Events::new(store.clone());
        let accounts = Accounts::new(directory, store.clone(), metrics, events)
            .map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
        let told = story(accounts, settings).await;
        // A story that never spoke to the store must not wait for it; nor fail where only this does.
        if store.up() {
            let _ = store.write_journal().await;
        }
        told
    })
}
