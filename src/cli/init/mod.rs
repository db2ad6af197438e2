//! `portcullis init`.

mod choices;
mod questions;
mod template;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use choices::{Choices, SignIn};
use clap::Args;
use questions::Questions;
use zeroize::Zeroizing;

use super::keys::{self, Algorithm};
use super::{print, print_warnings};
use crate::config;

/// `portcullis init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The file to write
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        hide_env_values = true,
        default_value = "portcullis.yaml"
    )]
    config: PathBuf,
    /// Replace an existing file. Files with secrets are always kept
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    given: GivenChoices,
}

/// Choices that an option makes are not asked for.
#[derive(Debug, Args)]
struct GivenChoices {
    /// Address of the backend: http://HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// How users sign in: `passwords`, or the issuer URL of an OpenID provider
    #[arg(long, value_name = "HOW")]
    sign_in: Option<String>,
    /// ID of the gateway at the provider
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Domain of the email addresses that may sign in at the provider
    #[arg(long, value_name = "DOMAIN")]
    allow_domain: Option<String>,
    /// Store of sessions and counters: `memory`, or the URL of a Redis
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Address of the gateway as browsers see it
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Where TLS ends: `none`, `proxy` for a proxy on this machine, or the PEM files CERT,KEY
    #[arg(long, value_name = "WHERE")]
    tls: Option<String>,
}

/// A file with a secret, beside the configuration.
struct SecretFile {
    name: String,
    purpose: &'static str,
    content: Zeroizing<String>,
}

/// Asks the questions and writes the files.
pub(super) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let path = args.config.as_path();
    if path == Path::new("-") {
        bail!("init writes files; name one with --config");
    }
    let shown = path.display();
    if path.exists() && !args.force {
        bail!("{shown} exists; --force replaces it");
    }
    let choices = Questions::new(std::io::stdin().lock()).ask_all(&args.given)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let secrets = secret_files(&choices, &stem)?;
    let text = template::render(&choices, &stem);
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut created = Vec::new();
    let outcome = write_secrets(folder, &secrets, &mut created)
        .and_then(|()| Ok(config::check(&text, path)?))
        .and_then(|warnings| write_config(path, &text, args.force).map(|()| warnings));
    let warnings = outcome.inspect_err(|_| {
        for file in &created {
            // The error that is returned is the one to report.
            let _ = std::fs::remove_file(file);
        }
    })?;
    // Such as a backend at the address of the gateway.
    print_warnings(&warnings);
    print(&summary(&choices, path, &secrets, &created))
}

/// Generates the secrets. None of them is in the configuration itself.
fn secret_files(choices: &Choices, stem: &str) -> anyhow::Result<Vec<SecretFile>> {
    let generate = |algorithm| keys::generate(algorithm).context("cannot generate a key");
    let mut files = vec![
        SecretFile {
            name: template::signing_key(stem),
            purpose: "the key that signs tokens",
            content: generate(Algorithm::EdDsa)?,
        },
        SecretFile {
            name: template::admin_token(stem),
            purpose: "the token of the admin listener",
            content: generate(Algorithm::Hs256)?,
        },
    ];
    if let Some(password) = &choices.store.password {
        files.push(SecretFile {
            name: template::store_password(stem),
            purpose: "the password of the store",
            content: Zeroizing::new(format!("{}\n", password.as_str())),
        });
    }
    Ok(files)
}

/// Writes the files that do not exist. An existing one may hold a secret that is in use.
fn write_secrets(
    folder: &Path,
    secrets: &[SecretFile],
    created: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    for secret in secrets {
        let path = folder.join(&secret.name);
        if path.exists() {
            continue;
        }
        keys::write_new(&path, &secret.content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        created.push(path);
    }
    Ok(())
}

fn write_config(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let write = |mut file: std::fs::File| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let written = options.open(path).and_then(write);
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn summary(choices: &Choices, path: &Path, secrets: &[SecretFile], created: &[PathBuf]) -> String {
    let shown = path.display();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut text = format!("{shown}: written\n");
    for secret in secrets {
        let path = folder.join(&secret.name);
        let state = match created.contains(&path) {
            true => "written",
            false => "kept as it was",
        };
        text += &format!("{}: {state}; {}\n", path.display(), secret.purpose);
    }
    text += "\nNext:\n";
    if let SignIn::Provider { .. } = choices.sign_in {
        text += "  export OIDC_SECRET=...    # the secret of the gateway at the provider\n";
    }
    text += &format!("  portcullis check --config {shown} --connect\n");
    if let SignIn::Passwords = choices.sign_in {
        text += &format!("  portcullis users add --config {shown} --email you@example.com\n");
    }
    text + &format!("  portcullis run --config {shown}\n")
}
