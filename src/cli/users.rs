//! `portcullis users`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigArgs, connect};
use crate::accounts::NewUser;

/// Users read at once.
const PAGE: u32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum UsersCommand {
    /// Add a user to the database
    ///
    /// The password comes from --password-file, from standard input with --password-stdin, or is
    /// made and printed. It is never an argument: others could see it.
    ///
    /// Example: portcullis users add --config portcullis.yaml --email ada@example.com --role admin
    #[command(verbatim_doc_comment)]
    Add(AddArgs),
    /// List the users in the database
    ///
    /// Example: portcullis users list --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    List(ConfigArgs),
}

/// `portcullis users add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// The email address, which is what users sign in with
    #[arg(long, value_name = "EMAIL")]
    pub email: String,
    /// A name to sign in with, beside the email address
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// The name to show
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// A scope; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Read the password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// Read the password from standard input, up to the end of its first line
    #[arg(long)]
    pub password_stdin: bool,
}

/// Does what is asked for with the users in the database.
pub(super) fn run(command: &UsersCommand) -> anyhow::Result<()> {
    match command {
        UsersCommand::Add(args) => add(args),
        UsersCommand::List(args) => list(args),
    }
}

fn add(args: &AddArgs) -> anyhow::Result<()> {
    let settings = crate::config::load(&args.config)?;
    let (password, made) = match read_password(args)? {
        Some(password) => (password, false),
        None => (
            SecretString::from(hex::encode(rand::random::<[u8; 16]>())),
            true,
        ),
    };
    let new = NewUser {
        email: args.email.clone(),
        username: args.username.clone(),
        name: args.name.clone(),
        password: password.clone(),
        roles: args.roles.clone(),
        scopes: args.scopes.clone(),
    };
    let length = settings.live.identity.password_min_length;
    let user = connect::with_accounts(settings, async |accounts, _| {
        Ok(accounts.add_user(new, length).await?)
    })?;
    let shown = if made {
        format!("{}\npassword: {}\n", user.id, password.expose_secret())
    } else {
        format!("{}\n", user.id)
    };
    super::print(&shown)
}

/// `None`: one is to be made.
fn read_password(args: &AddArgs) -> anyhow::Result<Option<SecretString>> {
    let text = if let Some(file) = &args.password_file {
        std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?
    } else if args.password_stdin {
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .context("standard input cannot be read")?;
        line
    } else {
        return Ok(None);
    };
    Ok(Some(SecretString::from(
        text.trim_end_matches(['\r', '\n']),
    )))
}

fn list(args: &ConfigArgs) -> anyhow::Result<()> {
    let settings = crate::config::load(&args.config)?;
    let users = connect::with_accounts(settings, async |accounts, _| {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = accounts.list_users(PAGE, after).await?;
            all.extend(page.users);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    })?;
    let mut shown = String::from(
        "ID                                    EMAIL  USERNAME  ROLES  SCOPES  STATUS\n",
    );
    for user in users {
        let line = [
            user.id,
            user.email,
            user.username.unwrap_or_else(|| "-".to_owned()),
            joined(&user.roles),
            joined(&user.scopes),
            (if user.disabled { "disabled" } else { "enabled" }).to_owned(),
        ];
        shown.push_str(&line.join("  "));
        shown.push('\n');
    }
    super::print(&shown)
}

fn joined(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    }
}
