//! `portcullis schema`.

use clap::{Args, ValueEnum};

use super::print;
use crate::config;

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// JSON Schema for editors, or the reference page in Markdown
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Markdown,
}

/// Prints the JSON Schema or the reference of the configuration file.
pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    match args.format {
        Format::Json => print(&format!("{:#}\n", config::schema())),
        Format::Markdown => print(&config::reference()),
    }
}
