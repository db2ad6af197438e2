use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde_json::Value;

use super::super::admin_client::{self, Needs};
use super::super::{output, print};

/// `portcullis token issue`.
#[derive(Debug, Args)]
pub(in crate::cli) struct IssueArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The user's email address, username or id
    #[arg(long, value_name = "USER")]
    user: String,
    /// Everything that a login answers, as JSON
    #[arg(long)]
    json: bool,
}

/// Signs the user in and prints the access token, or everything.
pub(super) fn run(args: &IssueArgs) -> anyhow::Result<()> {
    let issued = admin_client::with_client(&args.config, Needs::Sessions, async |office| {
        let user = office.require_user(&args.user).await?;
        let target = format!("/admin/users/{user}/sessions");
        let asked = office.request(Method::POST, &target, None).await;
        asked.map_err(|error| match error.is_not_found() {
            true => anyhow::anyhow!("the user {} is disabled", args.user),
            false => error.into(),
        })
    })?;
    if args.json {
        return print(&output::json(&issued));
    }
    let token = issued.get("access_token").and_then(Value::as_str);
    let token = token.context("the gateway's answer has no token")?;
    print(&format!("{}\n", output::sanitize_line(token)))
}
