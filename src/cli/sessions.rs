//! `portcullis sessions`.

use std::net::IpAddr;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::admin_client::{self, AdminClient, Needs};
use super::listing::Listing;
use super::{ConfigArgs, ErrorLines, ShowArgs, output, print};

#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// List sessions, of all users or of one
    ///
    /// The sessions of one user are listed newest first. Those of all users are listed in the order
    /// of the store, up to --limit.
    ///
    /// With a store in memory, the running gateway is queried through its admin listener, for which
    /// the configuration needs an admin.token.
    ///
    /// Examples:
    ///   portcullis sessions list --config portcullis.yaml --user ada@example.com
    ///   portcullis sessions list --config portcullis.yaml --ip 192.0.2.7 --status all --json
    #[command(verbatim_doc_comment)]
    List(ListArgs),
    /// Show one session
    ///
    /// Example: portcullis sessions show --config portcullis.yaml ID
    #[command(verbatim_doc_comment)]
    Show(ShowArgs),
    /// End sessions by their IDs, or all sessions of one user
    ///
    /// All gateways reject the sessions at once and close their open streams.
    ///
    /// Examples:
    ///   portcullis sessions revoke --config portcullis.yaml ID ID
    ///   portcullis sessions revoke --config portcullis.yaml --user ada@example.com
    #[command(verbatim_doc_comment)]
    Revoke(RevokeArgs),
}

/// `portcullis sessions list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only sessions of this user: email address, username or ID
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only sessions with this status
    #[arg(long, value_enum, default_value = "active", value_name = "STATUS")]
    status: Status,
    /// Only sessions that signed in or were used from this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Maximum number of sessions
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Continue a previous list from its `next_cursor`
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print JSON, in the form of the API
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Active,
    Revoked,
    Expired,
    All,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Revoked => "revoked",
            Status::Expired => "expired",
            Status::All => "all",
        }
    }
}

/// `portcullis sessions revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// IDs of the sessions
    #[arg(value_name = "ID", required_unless_present = "user")]
    ids: Vec<String>,
    /// All sessions of this user: email address, username or ID
    #[arg(long, value_name = "USER", conflicts_with = "ids")]
    user: Option<String>,
    /// JSON, as the API gives it, for programs
    #[arg(long)]
    json: bool,
}

/// Runs a command about sessions.
pub(super) fn run(command: &SessionsCommand) -> anyhow::Result<()> {
    match command {
        SessionsCommand::List(args) => list(args),
        SessionsCommand::Show(args) => show(args),
        SessionsCommand::Revoke(args) => revoke(args),
    }
}

/// Resolves a user, and returns whether the database has it. Users of trusted issuers and backends
/// are not in the database; for those, the name is the ID.
async fn find_owner(client: &AdminClient, named: &str) -> anyhow::Result<(String, bool)> {
    let user = client.find_user(named).await?;
    let exists = user.is_some();
    Ok((user.unwrap_or_else(|| named.to_owned()), exists))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let listing = admin_client::with_client(&args.config, Needs::Sessions, async |client| {
        let ip = args.ip.map(|ip| ip.to_string());
        let mut query = vec![("status", args.status.as_str())];
        query.extend(ip.as_deref().map(|ip| ("ip", ip)));
        let (limit, cursor) = (args.limit as usize, args.cursor.as_deref());
        let Some(named) = &args.user else {
            let listing = Listing::fetch(client, "sessions", &query, limit, cursor).await?;
            return Ok(listing.with_own_count());
        };
        let (user, exists) = find_owner(client, named).await?;
        query.push(("user", &user));
        let listing = Listing::fetch(client, "sessions", &query, limit, cursor).await?;
        if listing.items.is_empty() && !exists {
            bail!("there is no user {named}, and no session of such a user");
        }
        Ok(listing)
    })?;
    if args.json {
        return print(&output::json(&listing.into_json()));
    }
    print(&format_table(&listing.items))?;
    listing.print_next_page_hint();
    Ok(())
}

fn format_table(sessions: &[Value]) -> String {
    let rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            vec![
                output::text_at(session, "/id"),
                format_owner(session),
                output::text_at(session, "/status"),
                output::time_at(session, "/created_at"),
                output::time_at(session, "/last_access"),
                output::text_at(session, "/ip_address"),
                output::text_at(session, "/request_count"),
                output::text_at(session, "/live_connections"),
                format_device(session),
            ]
        })
        .collect();
    let header = [
        "ID",
        "USER",
        "STATUS",
        "SIGNED IN",
        "LAST USED",
        "ADDRESS",
        "REQUESTS",
        "LIVE",
        "DEVICE",
    ];
    output::table(&header, &rows)
}

/// Formats the owner of a session by email address, or else by ID.
fn format_owner(session: &Value) -> String {
    match output::text_at(session, "/email") {
        email if email != "-" => email,
        _ => output::text_at(session, "/user_id"),
    }
}

fn format_device(session: &Value) -> String {
    let parts = ["/device/type", "/device/name"].map(|part| output::text_at(session, part));
    let present: Vec<String> = parts.into_iter().filter(|part| part != "-").collect();
    match present.join(" ") {
        device if device.is_empty() => "-".to_owned(),
        device => device,
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let session = admin_client::with_client(&args.config, Needs::Sessions, async |client| {
        let response = client
            .request(Method::GET, &session_target(&args.named), None)
            .await;
        response.map_err(|error| match error.is_not_found() {
            true => anyhow::anyhow!("there is no session {}", args.named),
            false => error.into(),
        })
    })?;
    if args.json {
        return print(&output::json(&session));
    }
    let data = session.get("data").map(Value::to_string);
    print(&output::key_values(&[
        ("id", output::text_at(&session, "/id")),
        ("user", output::text_at(&session, "/user_id")),
        ("email", output::text_at(&session, "/email")),
        ("status", output::text_at(&session, "/status")),
        ("signed in", output::time_at(&session, "/created_at")),
        ("provider", output::text_at(&session, "/provider")),
        (
            "authenticated",
            output::time_at(&session, "/authenticated_at"),
        ),
        ("acr", output::text_at(&session, "/acr")),
        ("amr", output::text_at(&session, "/amr")),
        ("last used", output::time_at(&session, "/last_access")),
        ("expires", output::time_at(&session, "/expires_at")),
        ("address", output::text_at(&session, "/ip_address")),
        ("addresses", output::text_at(&session, "/ip_addresses")),
        ("user agent", output::text_at(&session, "/user_agent")),
        ("device", format_device(&session)),
        ("requests", output::text_at(&session, "/request_count")),
        ("live", output::text_at(&session, "/live_connections")),
        ("data", data.unwrap_or_else(|| "-".to_owned())),
    ]))
}

fn session_target(id: &str) -> String {
    format!("/admin/sessions/{}", encode_segment(id))
}

fn encode_segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let (revoked, errors) =
        admin_client::with_client(&args.config, Needs::Sessions, async |client| {
            match &args.user {
                Some(named) => Ok((revoke_user(client, named).await?, Vec::new())),
                None => Ok(revoke_each(client, &args.ids).await),
            }
        })?;
    // The sessions that ended are reported even if others failed.
    print(&match (args.json, revoked) {
        (true, _) => output::json(&json!({ "revoked": revoked })),
        (false, 1) => "1 session has been ended\n".to_owned(),
        (false, _) => format!("{revoked} sessions have been ended\n"),
    })?;
    ErrorLines::fail_if_any(errors)
}

async fn revoke_user(client: &AdminClient, named: &str) -> anyhow::Result<u64> {
    let (user, exists) = find_owner(client, named).await?;
    let target = format!("/admin/users/{}/sessions", encode_segment(&user));
    let response = client.request(Method::DELETE, &target, None).await?;
    let revoked = revoked_count(&response);
    if revoked == 0 && !exists {
        bail!("there is no user {named}, and no session of such a user");
    }
    Ok(revoked)
}

/// Ends as many sessions as possible, and returns the number and the errors.
async fn revoke_each(client: &AdminClient, ids: &[String]) -> (u64, Vec<String>) {
    let (mut revoked, mut errors) = (0, Vec::new());
    for id in ids {
        match client
            .request(Method::DELETE, &session_target(id), None)
            .await
        {
            Ok(response) => revoked += revoked_count(&response),
            Err(error) if error.is_not_found() => {
                errors.push(format!("there is no session {id}"));
            }
            Err(error) => errors.push(format!("session {id}: {error}")),
        }
    }
    (revoked, errors)
}

fn revoked_count(response: &Value) -> u64 {
    response
        .get("revoked")
        .and_then(Value::as_u64)
        .unwrap_or_default()
}
