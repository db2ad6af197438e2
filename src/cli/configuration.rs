//! `portcullis config`.

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, output, print};
use crate::config;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the configuration with all defaults
    ///
    /// The result is one valid file: included files are merged, and paths of files are absolute.
    /// Secrets, and texts from the environment, are shown as references to variables, such as
    /// ${JWT_SECRET}; a secret that is written in the file is shown as ${MASKED}.
    ///
    /// Example: portcullis config show --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// YAML or JSON
    #[arg(long, value_enum, default_value = "yaml", value_name = "FORMAT")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Runs a command about the configuration.
pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Show(args) = command;
    let effective = config::show(&args.config.open())?;
    match args.format {
        Format::Yaml => print(&effective.to_yaml()),
        Format::Json => print(&output::escape_json(&effective.to_json())),
    }
}
