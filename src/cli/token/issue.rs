use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde_json::Value;

use super::super::admin_client::{self, Needs};
use super::super::{ConfigArgs, output, print};
use crate::telemetry::printable::sanitize_line;

/// `portcullis token issue`.
#[derive(Debug, Args)]
pub(in crate::cli) struct IssueArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Email address, username or ID of the user
    #[arg(long, value_name = "USER")]
    user: String,
    /// Print the whole login response, as JSON
    #[arg(long)]
    json: bool,
}

/// Signs the user in and prints the access token, or the whole response.
pub(super) fn run(args: &IssueArgs) -> anyhow::Result<()> {
    let issued = admin_client::with_client(&args.config, Needs::NewSession, async |client| {
        let user = client.require_user(&args.user).await?;
        let target = format!("/admin/users/{user}/sessions");
        let response = client.request(Method::POST, &target, None).await;
        response.map_err(|error| match error.is_not_found() {
            true => anyhow::anyhow!("the user {} is disabled", args.user),
            false => error.into(),
        })
    })?;
    if args.json {
        return print(&output::json(&issued));
    }
    let token = issued.get("access_token").and_then(Value::as_str);
    let token = token.context("the response has no access token")?;
    print(&format!("{}\n", sanitize_line(token)))
}
