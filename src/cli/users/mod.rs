//! `portcullis users`.

mod change;
mod password;

use std::path::PathBuf;

use change::{ChangeArgs, EmailArgs, PasswordChangeArgs, RolesArgs};
use clap::{Args, Subcommand};
use http::Method;
use password::PasswordArgs;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::admin_client::{self, Needs};
use super::listing::Listing;
use super::{ShowArgs, output, print};

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Add a user to the database
    ///
    /// The password is asked for, without echo, at a terminal; else it is the first line of standard
    /// input, and where that is empty one is made and printed. It is never an argument: others could
    /// see it.
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
    /// Show one user, and whether they are online
    ///
    /// The user is named by email address, username or id.
    ///
    /// Example: portcullis users show --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Show(ShowArgs),
    /// Set a user's password, which ends all their sessions
    ///
    /// The new password is asked for, without echo, at a terminal; else it is the first line of
    /// standard input. It is never an argument: others could see it.
    ///
    /// Example: portcullis users set-password --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    SetPassword(PasswordChangeArgs),
    /// Set a user's roles, scopes or both, in force at once on the sessions they have
    ///
    /// What is given replaces what was there; roles are not touched when only scopes are given, nor
    /// scopes when only roles are.
    ///
    /// Examples:
    ///   portcullis users set-roles --config portcullis.yaml ada --role admin --role auditor
    ///   portcullis users set-roles --config portcullis.yaml ada --no-roles --scope orders:read
    #[command(verbatim_doc_comment)]
    SetRoles(RolesArgs),
    /// Set a user's email address, in force at once on the sessions they have
    ///
    /// Example: portcullis users set-email --config portcullis.yaml ada ada@example.org
    #[command(verbatim_doc_comment)]
    SetEmail(EmailArgs),
    /// Keep a user out: all their sessions end at once, and they cannot sign in
    ///
    /// Example: portcullis users disable --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Disable(ChangeArgs),
    /// Let a disabled user sign in again
    ///
    /// Example: portcullis users enable --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Enable(ChangeArgs),
    /// Delete a user for good, after all their sessions have ended
    ///
    /// Example: portcullis users remove --config portcullis.yaml ada@example.com
    #[command(verbatim_doc_comment)]
    Remove(ChangeArgs),
}

/// `portcullis users add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The email address, which is what users sign in with
    #[arg(long, value_name = "EMAIL")]
    email: String,
    /// A name to sign in with, beside the email address
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The name to show
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    #[command(flatten)]
    password: PasswordArgs,
    /// JSON, as the API gives it, for programs; with `password` if one was made
    #[arg(long)]
    json: bool,
}

/// `portcullis users list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// How many at most; all if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on where an earlier list ended: its `next_cursor`
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// JSON, as the API gives it, for programs
    #[arg(long)]
    json: bool,
}

/// Does what is asked for with the users in the database.
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
    let password = args.password.read_or_generate()?;
    let body = json!({
        "email": args.email,
        "username": args.username,
        "name": args.name,
        "password": password.secret.expose_secret(),
        "roles": args.roles,
        "scopes": args.scopes,
    });
    let mut user = admin_client::with_client(&args.config, Needs::Users, async |office| {
        let added = office
            .request(Method::POST, "/admin/users", Some(&body))
            .await;
        Ok(added?)
    })?;
    let made = password
        .is_generated
        .then(|| password.secret.expose_secret());
    if args.json {
        if let (Some(user), Some(made)) = (user.as_object_mut(), made) {
            user.insert("password".to_owned(), made.into());
        }
        return print(&output::json(&user));
    }
    let made = made.map_or_else(String::new, |made| format!("password: {made}\n"));
    print(&format!("{}\n{made}", output::text_at(&user, "/id")))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let wanted = args.limit.map_or(usize::MAX, |limit| limit as usize);
    let cursor = args.cursor.as_deref();
    let listing = admin_client::with_client(&args.config, Needs::Users, async |office| {
        Ok(Listing::fetch(office, "users", &[], wanted, cursor).await?)
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
    let user = admin_client::with_client(&args.config, Needs::UsersAndSessions, async |office| {
        let target = format!("/admin/users/{}", office.require_user(&args.named).await?);
        Ok(office.request(Method::GET, &target, None).await?)
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
