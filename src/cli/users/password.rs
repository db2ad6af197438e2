//! Sources of a password: never the command line, which is visible to other users.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use crate::cli::ConfigArgs;

/// Maximum length of the first line, in bytes; far above that of any accepted password.
const MAX_BYTES: u64 = 64 << 10;

/// Options for the source of a password.
#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "generate_password")]
    password_file: Option<PathBuf>,
    /// Generate a random password and print it
    #[arg(long)]
    generate_password: bool,
}

/// A password, and whether it was generated and must be printed.
pub(super) struct Password {
    pub(super) secret: SecretString,
    pub(super) is_generated: bool,
}

impl Password {
    fn generate() -> Password {
        Password {
            secret: hex::encode(rand::random::<[u8; 16]>()).into(),
            is_generated: true,
        }
    }
}

impl PasswordArgs {
    /// Reads the password from a file, generates it, prompts for it at the terminal, or reads the
    /// first line of standard input.
    pub(super) fn read(&self, config: &ConfigArgs) -> anyhow::Result<Password> {
        self.read_input(config, false)
    }

    /// Does the same for a new user, and also generates a password if standard input is empty.
    pub(super) fn read_or_generate(&self, config: &ConfigArgs) -> anyhow::Result<Password> {
        self.read_input(config, true)
    }

    fn read_input(&self, config: &ConfigArgs, generate_if_empty: bool) -> anyhow::Result<Password> {
        let secret = if let Some(file) = &self.password_file {
            let opened = std::fs::File::open(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            first_line(opened).with_context(|| format!("{}", file.display()))?
        } else if self.generate_password {
            return Ok(Password::generate());
        } else if std::io::stdin().is_terminal() {
            Some(prompt_twice()?)
        } else {
            config.leave_stdin_for("the password")?;
            first_line(std::io::stdin()).context("standard input")?
        };
        match secret {
            Some(secret) => Ok(Password {
                secret,
                is_generated: false,
            }),
            None if generate_if_empty && self.password_file.is_none() => Ok(Password::generate()),
            None => bail!("no password was given"),
        }
    }
}

/// Prompts twice, because the input is not echoed.
fn prompt_twice() -> anyhow::Result<SecretString> {
    let prompt = |text| {
        let input = rpassword::prompt_password(text);
        let input = input.context("cannot prompt for a password at this terminal")?;
        anyhow::Ok(SecretString::from(input))
    };
    let first = prompt("Password: ")?;
    if first.expose_secret() != prompt("Again: ")?.expose_secret() {
        bail!("the passwords differ");
    }
    Ok(first)
}

/// Reads the first line; `None` if the input is empty.
fn first_line(input: impl Read) -> anyhow::Result<Option<SecretString>> {
    let mut line = Vec::new();
    let mut input = std::io::BufReader::new(input).take(MAX_BYTES);
    input
        .read_until(b'\n', &mut line)
        .context("cannot read the first line")?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = String::from_utf8(line)
        .ok()
        .context("the password must be UTF-8")?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).into()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn password_is_one_line_including_spaces() {
        for (text, expected) in [
            (" two words \nrest\n", Some(" two words ")),
            ("windows\r\n", Some("windows")),
            ("no end", Some("no end")),
            ("\n", Some("")),
            ("", None),
        ] {
            let password = first_line(text.as_bytes()).unwrap();
            let password = password.as_ref().map(ExposeSecret::expose_secret);
            assert_eq!(password, expected, "{text:?}");
        }
        assert!(first_line(&b"\xff\n"[..]).is_err());
        assert_eq!(Password::generate().secret.expose_secret().len(), 32);
    }
}
