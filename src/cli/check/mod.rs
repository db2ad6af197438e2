//! `portcullis check`.

mod report;

use clap::{Args, ValueEnum};
use report::entries;

use super::{ConfigArgs, ErrorLines, connect, print, print_warnings, wrong_usage};
use crate::config::{self, Loaded, Purpose};

/// `portcullis check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Form of the errors and warnings: lines of text, one JSON object, or annotations of GitHub
    /// Actions
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: Format,
    /// Also connect to the store, the database, the upstreams, the certificate authorities and the
    /// providers, and print the addresses to register at the providers
    #[arg(long)]
    connect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
}

/// Loads the file as `run` would, and reports whether it is valid.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    if args.connect && args.format != Format::Text {
        return Err(wrong_usage("--connect has results in text only"));
    }
    let purpose = match args.connect {
        true => Purpose::Connect,
        false => Purpose::Check,
    };
    let source = args.config.open();
    let Loaded { outcome, .. } = config::load_watched(&source, purpose);
    let valid = format!("{}: valid\n", source.path().display());
    if args.format == Format::Text {
        let (settings, warnings) = outcome?;
        print_warnings(&warnings);
        print(&valid)?;
        return match args.connect {
            true => connect::run(&settings),
            false => Ok(()),
        };
    }
    let is_valid = outcome.is_ok();
    let list = match &outcome {
        Ok((_, diagnostics)) | Err(diagnostics) => entries(diagnostics),
    };
    print(&match args.format {
        Format::Json => report::json(&list, is_valid),
        Format::Text | Format::Github => report::github(&list),
    })?;
    if !is_valid {
        // The errors are in the report.
        return Err(ErrorLines(Vec::new()).into());
    }
    if args.format == Format::Github {
        print(&valid)?;
    }
    Ok(())
}
