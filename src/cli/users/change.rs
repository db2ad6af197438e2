//! Commands that change an existing user.

use clap::Args;
use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::super::admin_client::{self, Needs};
use super::super::{ConfigArgs, output, print};
use super::password::PasswordArgs;

/// `portcullis users disable`, `enable` and `remove`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ChangeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Email address, username or ID of the user
    #[arg(value_name = "USER")]
    user: String,
    /// Print JSON, in the form of the API
    #[arg(long)]
    json: bool,
}

/// `portcullis users set-password`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PasswordChangeArgs {
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    password: PasswordArgs,
}

/// `portcullis users set-email`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EmailArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// The new email address
    #[arg(value_name = "EMAIL")]
    email: String,
}

/// `portcullis users set-roles`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RolesArgs {
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    grants: Grants,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Grants {
    /// A role; can be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope; can be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Remove all roles
    #[arg(long, conflicts_with = "roles")]
    no_roles: bool,
    /// Remove all scopes
    #[arg(long, conflicts_with = "scopes")]
    no_scopes: bool,
}

pub(super) fn set_password(args: &PasswordChangeArgs) -> anyhow::Result<()> {
    let password = args.password.read(&args.change.config)?;
    let secret = password.secret.expose_secret();
    let mut user = patch_user(&args.change, &json!({ "password": secret }))?;
    if args.change.json {
        if let (Some(user), true) = (user.as_object_mut(), password.is_generated) {
            user.insert("password".to_owned(), secret.into());
        }
        return print(&output::json(&user));
    }
    let generated = if password.is_generated {
        format!("password: {secret}\n")
    } else {
        String::new()
    };
    let email = output::text_at(&user, "/email");
    print(&format!(
        "{email} has a new password; all sessions have been ended\n{generated}"
    ))
}

pub(super) fn set_roles(args: &RolesArgs) -> anyhow::Result<()> {
    let Grants {
        roles,
        scopes,
        no_roles,
        no_scopes,
    } = &args.grants;
    let mut body = Map::new();
    if *no_roles || !roles.is_empty() {
        body.insert("roles".to_owned(), json!(roles));
    }
    if *no_scopes || !scopes.is_empty() {
        body.insert("scopes".to_owned(), json!(scopes));
    }
    let user = patch_user(&args.change, &Value::Object(body))?;
    if args.change.json {
        return print(&output::json(&user));
    }
    let [email, roles, scopes] =
        ["/email", "/roles", "/scopes"].map(|part| output::text_at(&user, part));
    print(&format!("{email} has roles {roles} and scopes {scopes}\n"))
}

pub(super) fn set_disabled(args: &ChangeArgs, disabled: bool) -> anyhow::Result<()> {
    let user = patch_user(args, &json!({ "disabled": disabled }))?;
    if args.json {
        return print(&output::json(&user));
    }
    let email = output::text_at(&user, "/email");
    let sentence = if disabled {
        "is disabled; all sessions have been ended"
    } else {
        "is enabled"
    };
    print(&format!("{email} {sentence}\n"))
}

pub(super) fn set_email(args: &EmailArgs) -> anyhow::Result<()> {
    let user = patch_user(&args.change, &json!({ "email": args.email }))?;
    if args.change.json {
        return print(&output::json(&user));
    }
    let [id, email] = ["/id", "/email"].map(|part| output::text_at(&user, part));
    print(&format!("{id} has the email address {email}\n"))
}

pub(super) fn remove(args: &ChangeArgs) -> anyhow::Result<()> {
    let user = admin_client::with_client(&args.config, Needs::UsersAndSessions, async |client| {
        let target = format!("/admin/users/{}", client.require_user(&args.user).await?);
        let user = client.request(Method::GET, &target, None).await?;
        client.request(Method::DELETE, &target, None).await?;
        Ok(user)
    })?;
    if args.json {
        return print(&output::json(&user));
    }
    let email = output::text_at(&user, "/email");
    print(&format!(
        "{email} is deleted; all sessions have been ended\n"
    ))
}

fn patch_user(args: &ChangeArgs, body: &Value) -> anyhow::Result<Value> {
    admin_client::with_client(&args.config, Needs::UsersAndSessions, async |client| {
        let target = format!("/admin/users/{}", client.require_user(&args.user).await?);
        Ok(client.request(Method::PATCH, &target, Some(body)).await?)
    })
}
