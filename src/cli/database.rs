//! `portcullis database`.

use anyhow::Context as _;
use clap::Subcommand;

use super::ConfigArgs;
use crate::database::Database;

#[derive(Debug, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Bring the tables of the database up to date
    ///
    /// A gateway does so when it starts; this does it beforehand, by somebody who may change tables
    /// where the gateway may not. Running it again changes nothing.
    ///
    /// Example: portcullis database migrate --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    Migrate(ConfigArgs),
}

/// Does what is asked for with the database's tables.
pub(super) fn run(command: &DatabaseCommand) -> anyhow::Result<()> {
    match command {
        DatabaseCommand::Migrate(args) => migrate(args),
    }
}

fn migrate(args: &ConfigArgs) -> anyhow::Result<()> {
    let settings = crate::config::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be started")?;
    let database = &settings.boot.database;
    runtime.block_on(async {
        Database::open(database).await?.close().await;
        anyhow::Ok(())
    })?;
    let version = Database::schema_version();
    super::print(&format!("{database} is at version {version}\n"))
}
