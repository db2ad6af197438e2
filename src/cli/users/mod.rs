//! `portcullis users`.

mod change;
mod password;

use change::{ChangeArgs, EmailArgs, PasswordChangeArgs, RolesArgs};
use clap::{Args, Subcommand};
use http::Method;
use password::PasswordArgs;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::admin_client::{self, Needs};
use super::listing::Listing;
use super::{ConfigArgs, ShowArgs, output, print};

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Add a user to the database
    ///
    /// At a terminal, prompts for the password without echo. Otherwise reads it from the first line
    /// of standard input, or generates and prints one if that is empty. A password is never an
    /// argument, because arguments are visible to other users.
    ///
    /// Examples:
    ///   portcullis users add --config portcullis.yaml --email ada@example.com --role admin
    ///   pass show ada | portcullis users add --config portcullis.yaml --email ada@example.com
    #[command(verbatim_doc_comment)]
    Add(AddArgs),
    /// List the users in the database, newest first
    ///
    /// Example: portcullis users list --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    List(ListArgs),
    /// Show one user, and whether the user is online
    ///
    /// The user is specified by email address, username or ID.
    ///
    /// Example: portcullis users show --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Show(ShowArgs),
    /// Set a user's password and end all sessions of the user
    ///
    /// At a terminal, prompts for the new password without echo. Otherwise reads it from the first
    /// line of standard input. A password is never an argument, because arguments are visible to
    /// other users.
    ///
    /// Example: portcullis users set-password --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    SetPassword(PasswordChangeArgs),
    /// Set a user's roles, scopes or both, with immediate effect on existing sessions
    ///
    /// The given roles or scopes replace the current ones. Roles are unchanged if only scopes are
    /// given, and scopes if only roles are given.
    ///
    /// Examples:
    ///   portcullis users set-roles --config portcullis.yaml ada --role admin --role auditor
    ///   portcullis users set-roles --config portcullis.yaml ada --no-roles --scope orders:read
    #[command(verbatim_doc_comment)]
    SetRoles(RolesArgs),
    /// Set a user's email address, with immediate effect on existing sessions
    ///
    /// Example: portcullis users set-email --config portcullis.yaml ada ada@example.org
    #[command(verbatim_doc_comment)]
    SetEmail(EmailArgs),
    /// Disable a user: end all sessions and prevent sign-in
    ///
    /// Example: portcullis users disable --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Disable(ChangeArgs),
    /// Enable a disabled user
    ///
    /// Example: portcullis users enable --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Enable(ChangeArgs),
    /// End all sessions of a user and delete the user permanently
    ///
    /// Example: portcullis users remove --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Remove(ChangeArgs),
}

/// `portcullis users add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Email address, used to sign in
    #[arg(long, value_name = "EMAIL")]
    email: String,
    /// Username, which can be used to sign in as well
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Display name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A role; can be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope; can be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Print JSON, in the form of the API, with `password` if it was generated
    #[arg(long)]
    json: bool,
}

/// `portcullis users list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Maximum number of users; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Continue a previous list from its `next_cursor`
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print JSON, in the form of the API
    #[arg(long)]
    json: bool,
}

/// Runs a command about users in the database.
pub(super) fn run(command: &UsersCommand) -> anyhow::Result<()> {
    match command {
        UsersCommand::Add(args) => add(args),
        UsersCommand::List(args) => list(args),
        UsersCommand::Show(args) => show(args),
        UsersCommand::SetPassword(args) => change::set_password(args),
        UsersCommand::SetRoles(args) => change::set_roles(args),
        UsersCommand::Disable(args) => change::set_disabled(args, true),
        UsersCommand::Enable(args) => change::set_disabled(args, false),
        UsersCommand::SetEmail(args) => change::set_email(args),
        UsersCommand::Remove(args) => change::remove(args),
    }
}

fn add(args: &AddArgs) -> anyhow::Result<()> {
    let password = args.password.read_or_generate(&args.config)?;
    let body = json!({
        "email": args.email,
        "username": args.username,
        "name": args.name,
        "password": password.secret.expose_secret(),
        "roles": args.roles,
        "scopes": args.scopes,
    });
    let mut user = admin_client::with_client(&args.config, Needs::Users, async |client| {
        let added = client
            .request(Method::POST, "/admin/users", Some(&body))
            .await;
        Ok(added?)
    })?;
    let generated = password
        .is_generated
        .then(|| password.secret.expose_secret());
    if args.json {
        if let (Some(user), Some(generated)) = (user.as_object_mut(), generated) {
            user.insert("password".to_owned(), generated.into());
        }
        return print(&output::json(&user));
    }
    let generated =
        generated.map_or_else(String::new, |generated| format!("password: {generated}\n"));
    print(&format!("{}\n{generated}", output::text_at(&user, "/id")))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let cursor = args.cursor.as_deref();
    let listing = admin_client::with_client(&args.config, Needs::Users, async |client| {
        Ok(Listing::fetch(client, "users", &[], limit, cursor).await?)
    })?;
    if args.json {
        return print(&output::json(&listing.into_json()));
    }
    let rows: Vec<Vec<String>> = listing
        .items
        .iter()
        .map(|user| {
            let mut row = ["/id", "/email", "/username", "/roles", "/scopes"]
                .map(|part| output::text_at(user, part))
                .to_vec();
            row.push(status(user).to_owned());
            row
        })
        .collect();
    let header = ["ID", "EMAIL", "USERNAME", "ROLES", "SCOPES", "STATUS"];
    print(&output::table(&header, &rows))?;
    listing.print_next_page_hint();
    Ok(())
}

fn status(user: &Value) -> &'static str {
    match user.get("disabled").and_then(Value::as_bool) {
        Some(true) => "disabled",
        _ => "enabled",
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let user = admin_client::with_client(&args.config, Needs::UsersAndSessions, async |client| {
        let target = format!("/admin/users/{}", client.require_user(&args.named).await?);
        Ok(client.request(Method::GET, &target, None).await?)
    })?;
    if args.json {
        return print(&output::json(&user));
    }
    print(&output::key_values(&[
        ("id", output::text_at(&user, "/id")),
        ("email", output::text_at(&user, "/email")),
        ("username", output::text_at(&user, "/username")),
        ("name", output::text_at(&user, "/name")),
        ("roles", output::text_at(&user, "/roles")),
        ("scopes", output::text_at(&user, "/scopes")),
        ("status", status(&user).to_owned()),
        ("created", output::text_at(&user, "/created_at")),
        ("changed", output::text_at(&user, "/updated_at")),
        ("online", output::text_at(&user, "/online")),
        ("sessions", output::text_at(&user, "/active_sessions")),
        ("live", output::text_at(&user, "/live_connections")),
    ]))
}
