//! `portcullis api-keys`.

mod secret;

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use ipnet::IpNet;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secret::{SecretArgs, SecretOutput};
use serde_json::{Value, json};

use super::admin_client::{self, AdminClient, Needs, RequestError};
use super::listing::Listing;
use super::{ConfigArgs, ErrorLines, ShowArgs, output, print};
use crate::auth::api_key::ApiKeyOwner;

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeysCommand {
    /// Create a key for a user or a service, and print it
    ///
    /// The key is printed alone, this once: the database keeps its hash. A user's key has only such
    /// roles and scopes as the user has, and loses those that the user loses.
    ///
    /// Examples:
    ///   portcullis api-keys add --config portcullis.yaml --user ada@example.com --name laptop
    ///   portcullis api-keys add --config portcullis.yaml --service billing --name nightly \
    ///     --scope orders:read --expires-at 2027-01-01T00:00:00Z --out billing.key
    #[command(verbatim_doc_comment)]
    Add(AddArgs),
    /// List keys, of all owners or of one, newest first
    ///
    /// Example: portcullis api-keys list --config portcullis.yaml --service billing --status all
    #[command(verbatim_doc_comment)]
    List(ListArgs),
    /// Show one key, without its secret
    ///
    /// Example: portcullis api-keys show --config portcullis.yaml ID
    #[command(verbatim_doc_comment)]
    Show(ShowArgs),
    /// Replace the secret of a key, and print the new one
    ///
    /// The ID stays. The previous secret is rejected at once, or after --grace, at most 7d, within
    /// which the programs that use the key can be changed.
    ///
    /// Example: portcullis api-keys rotate --config portcullis.yaml ID --grace 24h --out billing.key
    #[command(verbatim_doc_comment)]
    Rotate(RotateArgs),
    /// Revoke keys by their IDs
    ///
    /// All gateways reject the keys within a second and close the streams that they opened.
    ///
    /// Example: portcullis api-keys revoke --config portcullis.yaml ID ID
    #[command(verbatim_doc_comment)]
    Revoke(RevokeArgs),
}

/// `portcullis api-keys add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    owner: OwnerArgs,
    /// What the key is for
    #[arg(long, value_name = "NAME")]
    name: String,
    /// A role; can be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope; can be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// When the key expires, as 2027-01-01T00:00:00Z; by default after api_keys.max_ttl, or never
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// An address or network from which the key can be used; can be repeated. By default, any
    #[arg(long = "allow-ip", value_name = "CIDR", value_parser = parse_network)]
    allowed_ips: Vec<IpNet>,
    #[command(flatten)]
    secret: SecretArgs,
}

/// The owner of a key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct OwnerArgs {
    /// Email address, username or ID of the user that owns the key
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Name of the service that owns the key; it is created by its first key
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

/// `portcullis api-keys list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only keys of this user: email address, username or ID
    #[arg(long, value_name = "USER", conflicts_with = "service")]
    user: Option<String>,
    /// Only keys of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only keys with this status
    #[arg(long, value_enum, default_value = "active", value_name = "STATUS")]
    status: Status,
    /// Maximum number of keys; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
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
    Expired,
    Revoked,
    All,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Expired => "expired",
            Status::Revoked => "revoked",
            Status::All => "all",
        }
    }
}

/// `portcullis api-keys rotate`.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// ID of the key
    #[arg(value_name = "ID")]
    id: String,
    /// How long the previous secret remains valid, at most 7d
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    grace: String,
    #[command(flatten)]
    secret: SecretArgs,
}

/// `portcullis api-keys revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// IDs of the keys
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Print JSON, in the form of the API
    #[arg(long)]
    json: bool,
}

/// Parses a network, or an address as the network of that address alone.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let address: Option<IpAddr> = text.parse().ok();
    let network = address.map(IpNet::from).or_else(|| text.parse().ok());
    network.ok_or("not an address or a network such as 192.0.2.0/24".to_owned())
}

/// Runs a command about API keys.
pub(super) fn run(command: &ApiKeysCommand) -> anyhow::Result<()> {
    match command {
        ApiKeysCommand::Add(args) => add(args),
        ApiKeysCommand::List(args) => list(args),
        ApiKeysCommand::Show(args) => show(args),
        ApiKeysCommand::Rotate(args) => rotate(args),
        ApiKeysCommand::Revoke(args) => revoke(args),
    }
}

const KEYS_ARE_OFF: &str = "there are no API keys: the configuration has no section api_keys";

/// Explains that there are no keys, where a call about all of them is not found.
fn explain_off(error: RequestError) -> anyhow::Error {
    match error.is_not_found() {
        true => anyhow::anyhow!(KEYS_ARE_OFF),
        false => error.into(),
    }
}

fn add(args: &AddArgs) -> anyhow::Result<()> {
    let output = SecretOutput::open(&args.secret)?;
    let needs = Needs::UsersAndSessions;
    let created = admin_client::with_client(&args.config, needs, async |client| {
        let body = new_key(client, args).await?;
        let added = client.request(Method::POST, "/admin/api-keys", Some(&body));
        added.await.map_err(explain_off)
    });
    output.finish(created)
}

/// Describes the new key to the API.
async fn new_key(client: &AdminClient, args: &AddArgs) -> anyhow::Result<Value> {
    let user = match &args.owner.user {
        Some(named) => Some(client.require_user(named).await?),
        None => None,
    };
    let networks: Vec<String> = args.allowed_ips.iter().map(ToString::to_string).collect();
    Ok(json!({
        "user": user,
        "service": args.owner.service,
        "name": args.name,
        "roles": args.roles,
        "scopes": args.scopes,
        "expires_at": args.expires_at,
        "allowed_ips": networks,
    }))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let listing = admin_client::with_client(&args.config, Needs::Users, async |client| {
        let owner = match (&args.user, &args.service) {
            (Some(named), _) => Some(client.require_user(named).await?),
            (None, service) => {
                let service = service.clone().map(ApiKeyOwner::Service);
                service.map(|service| service.to_string())
            }
        };
        let mut query = vec![("status", args.status.as_str())];
        query.extend(owner.as_deref().map(|owner| ("owner", owner)));
        let cursor = args.cursor.as_deref();
        let listing = Listing::fetch(client, "api_keys", &query, limit, cursor).await;
        listing.map_err(explain_off)
    })?;
    if args.json {
        return print(&output::json(&listing.into_json()));
    }
    let rows: Vec<Vec<String>> = listing.items.iter().map(row).collect();
    let header = [
        "ID",
        "NAME",
        "OWNER",
        "ROLES",
        "SCOPES",
        "STATUS",
        "EXPIRES",
        "LAST USED",
        "REQUESTS",
    ];
    print(&output::table(&header, &rows))?;
    listing.print_next_page_hint();
    Ok(())
}

fn row(key: &Value) -> Vec<String> {
    let parts = ["/id", "/name", "/owner", "/roles", "/scopes", "/status"];
    let mut row = parts.map(|part| output::text_at(key, part)).to_vec();
    row.push(output::time_at(key, "/expires_at"));
    row.push(output::time_at(key, "/last_used_at"));
    row.push(output::text_at(key, "/request_count"));
    row
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let key = admin_client::with_client(&args.config, Needs::Users, async |client| {
        let shown = client
            .request(Method::GET, &target(&args.named), None)
            .await;
        shown.map_err(|error| explain(error, &args.named))
    })?;
    if args.json {
        return print(&output::json(&key));
    }
    print(&output::key_values(&[
        ("id", output::text_at(&key, "/id")),
        ("name", output::text_at(&key, "/name")),
        ("owner", output::text_at(&key, "/owner")),
        ("roles", output::text_at(&key, "/roles")),
        ("scopes", output::text_at(&key, "/scopes")),
        ("addresses", output::text_at(&key, "/allowed_ips")),
        ("status", output::text_at(&key, "/status")),
        ("created", output::time_at(&key, "/created_at")),
        ("expires", output::time_at(&key, "/expires_at")),
        ("last used", output::time_at(&key, "/last_used_at")),
        ("last address", output::text_at(&key, "/last_used_ip")),
        ("requests", output::text_at(&key, "/request_count")),
    ]))
}

fn target(id: &str) -> String {
    format!(
        "/admin/api-keys/{}",
        utf8_percent_encode(id, NON_ALPHANUMERIC)
    )
}

/// Explains why a call for one key failed.
fn explain(error: RequestError, id: &str) -> anyhow::Error {
    match error.is_not_found() {
        true => anyhow::anyhow!("there is no API key {id}"),
        false => error.into(),
    }
}

fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let output = SecretOutput::open(&args.secret)?;
    let rotated =
        admin_client::with_client(&args.config, Needs::UsersAndSessions, async |client| {
            let target = format!("{}/rotate", target(&args.id));
            let body = json!({ "grace": args.grace });
            let rotated = client.request(Method::POST, &target, Some(&body)).await;
            rotated.map_err(|error| explain(error, &args.id))
        });
    output.finish(rotated)
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let (revoked, errors) =
        admin_client::with_client(&args.config, Needs::UsersAndSessions, async |client| {
            Ok(revoke_each(client, &args.ids).await)
        })?;
    // The keys that were revoked are reported even if others failed.
    print(&match (args.json, revoked) {
        (true, _) => output::json(&json!({ "revoked": revoked })),
        (false, 1) => "1 key has been revoked\n".to_owned(),
        (false, _) => format!("{revoked} keys have been revoked\n"),
    })?;
    ErrorLines::fail_if_any(errors)
}

/// Revokes as many keys as possible, and returns the number and the errors.
async fn revoke_each(client: &AdminClient, ids: &[String]) -> (u64, Vec<String>) {
    let (mut revoked, mut errors) = (0, Vec::new());
    for id in ids {
        match client.request(Method::DELETE, &target(id), None).await {
            Ok(response) => {
                let count = response.get("revoked").and_then(Value::as_u64);
                revoked += count.unwrap_or_default();
            }
            Err(error) => errors.push(format!("{:#}", explain(error, id))),
        }
    }
    (revoked, errors)
}
