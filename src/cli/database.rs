//! `portcullis database`.

use anyhow::Context as _;
use clap::Subcommand;

use super::ConfigArgs;
use crate::config::Purpose;
use crate::database::Database;

#[derive(Debug, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Update the tables of the database
    ///
    /// A gateway does this when it starts. Run it beforehand, as a database user who can change
    /// tables, if the gateway's own user cannot. Running it again changes nothing.
    ///
    /// Example: portcullis database migrate --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    Migrate(ConfigArgs),
}

/// Runs a command about the database.
pub(super) fn run(command: &DatabaseCommand) -> anyhow::Result<()> {
    match command {
        DatabaseCommand::Migrate(args) => migrate(args),
    }
}

fn migrate(args: &ConfigArgs) -> anyhow::Result<()> {
    let settings = args.load(Purpose::Database)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let database = &settings.boot.database;
    runtime.block_on(async {
        Database::open(database).await?.close().await;
        anyhow::Ok(())
    })?;
    let version = Database::schema_version();
    super::print(&format!("{database} is at version {version}\n"))
}
