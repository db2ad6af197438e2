use std::io::Read;

use anyhow::{Context, bail};
use clap::Args;

use crate::auth::token;
use crate::auth::token::Inspection;
use crate::cli::{ConfigArgs, output, print};
use crate::clock;
use crate::config::Purpose;
use crate::telemetry::printable::sanitize_line;

/// Maximum length of a token, in bytes; `limits.head` does not allow more.
const MAX_TOKEN: u64 = 1 << 20;

/// `portcullis token inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// `-` for standard input, which is the default
    #[arg(value_name = "-", value_parser = ["-"])]
    input: Option<String>,
}

/// Prints the contents of the token on standard input, and whether it would be accepted.
pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    args.config.leave_stdin_for("the token")?;
    let settings = args.config.load(Purpose::InspectTokens)?;
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_TOKEN)
        .read_to_string(&mut text)
        .context("cannot read a token from standard input")?;
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    if token.is_empty() {
        bail!("there is no token on standard input");
    }
    print(&describe(&token::inspect(
        &settings.reloadable.tokens,
        token,
        clock::unix_millis(),
    )))
}

fn describe(inspection: &Inspection) -> String {
    let part = |part: &Option<serde_json::Value>| match part {
        Some(value) => output::json(value).trim_end().to_owned(),
        None => "not readable".to_owned(),
    };
    let verdict = match &inspection.rejection_reason {
        None if inspection.is_bound => {
            "accepted by keys, claims and time, but only over TLS with the client certificate \
             in `cnf`; refused as a plain bearer token"
                .to_owned()
        }
        None => "accepted by keys, claims and time".to_owned(),
        Some(reason) => format!("refused: {}", sanitize_line(&reason.to_string())),
    };
    format!(
        "header  {}\nclaims  {}\nverdict {verdict}\n",
        part(&inspection.header),
        part(&inspection.claims),
    )
}
