use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::ExposeSecret;

use super::super::connect;
use crate::accounts::{Accounts, Visitor};
use crate::directory::User;
use crate::session::Device;
use crate::settings::{Engine, Settings};

/// How long a store may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(2);

/// `portcullis token issue`.
#[derive(Debug, Args)]
pub(in crate::cli) struct IssueArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// The user's email address, username or id
    #[arg(long, value_name = "USER")]
    pub user: String,
}

/// Signs the user in and prints the access token.
pub(super) fn run(args: &IssueArgs) -> anyhow::Result<()> {
    let settings = crate::config::load(&args.config)?;
    let token = connect::with_accounts(settings, async |accounts, settings| {
        let user = find(&accounts, &args.user).await?;
        match settings.boot.store.engine {
            // Only the running gateway knows its memory.
            Engine::Memory => ask_the_gateway(&settings, &user).await,
            Engine::Redis(_) => open(&accounts, &settings, user).await,
        }
    })?;
    super::super::print(&format!("{token}\n"))
}

async fn find(accounts: &Accounts, named: &str) -> anyhow::Result<User> {
    let directory = accounts.directory();
    let lower = named.to_ascii_lowercase();
    let found = if named.contains('@') {
        directory.user_by_email(&lower).await?
    } else {
        match directory.user(named).await? {
            Some(user) => Some(user),
            None => directory.user_by_username(&lower).await?,
        }
    };
    found.with_context(|| format!("there is no user {named}"))
}

async fn open(accounts: &Accounts, settings: &Settings, user: User) -> anyhow::Result<String> {
    let visitor = Visitor {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: "portcullis token issue".to_owned(),
        device: Device::default(),
    };
    let started = tokio::time::Instant::now();
    loop {
        match accounts
            .open_session(&settings.live, user.clone(), &visitor)
            .await
        {
            Ok(signed_in) => return Ok(signed_in.access_token),
            // The link to the store is made in the background.
            Err(crate::accounts::Failure::Store(_)) if started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(failure) => return Err(failure).context("the session could not be made"),
        }
    }
}

async fn ask_the_gateway(settings: &Settings, user: &User) -> anyhow::Result<String> {
    let admin = settings.boot.admin;
    let token = settings
        .live
        .admin_token
        .as_ref()
        .context("the store is in memory, which only the running gateway knows; to be asked it needs an admin.token")?;
    let answer = reqwest::Client::new()
        .post(format!("http://{admin}/admin/users/{}/sessions", user.id))
        .bearer_auth(token.expose_secret())
        .send()
        .await
        .with_context(|| format!("the gateway's admin listener {admin} cannot be reached"))?;
    anyhow::ensure!(
        answer.status().is_success(),
        "the gateway answered {}",
        answer.status()
    );
    let body: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
    let token = body
        .pointer("/data/access_token")
        .and_then(serde_json::Value::as_str);
    Ok(token
        .context("the gateway's answer has no token")?
        .to_owned())
}
