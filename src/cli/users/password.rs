//! Where a password comes from: never from the command line, which others can see.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

/// Bytes; far more than any password that is accepted.
const MAX_BYTES: u64 = 64 << 10;

/// How a password is given.
#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "generate_password")]
    password_file: Option<PathBuf>,
    /// Make a random password, and print it
    #[arg(long)]
    generate_password: bool,
}

/// A password, and whether its owner has yet to learn it.
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
    /// From a file, or made; else asked for at the terminal, without echo; else the first line of
    /// standard input.
    pub(super) fn read(&self) -> anyhow::Result<Password> {
        self.read_input(false)
    }

    /// The same for somebody new, for whom one is made also when standard input is empty.
    pub(super) fn read_or_generate(&self) -> anyhow::Result<Password> {
        self.read_input(true)
    }

    fn read_input(&self, make: bool) -> anyhow::Result<Password> {
        let given = if let Some(file) = &self.password_file {
            let opened = std::fs::File::open(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            first_line(opened).with_context(|| format!("{}", file.display()))?
        } else if self.generate_password {
            return Ok(Password::generate());
        } else if std::io::stdin().is_terminal() {
            Some(prompt_twice()?)
        } else {
            first_line(std::io::stdin()).context("standard input")?
        };
        match given {
            Some(secret) => Ok(Password {
                secret,
                is_generated: false,
            }),
            None if make && self.password_file.is_none() => Ok(Password::generate()),
            None => bail!("there is no password to read"),
        }
    }
}

/// Twice, since it is not seen.
fn prompt_twice() -> anyhow::Result<SecretString> {
    let prompt = |text| {
        let typed = rpassword::prompt_password(text);
        let typed = typed.context("no password can be asked for at this terminal")?;
        anyhow::Ok(SecretString::from(typed))
    };
    let first = prompt("Password: ")?;
    if first.expose_secret() != prompt("Again: ")?.expose_secret() {
        bail!("these are two different passwords");
    }
    Ok(first)
}

/// `None`: there is no line at all.
fn first_line(from: impl Read) -> anyhow::Result<Option<SecretString>> {
    let mut line = Vec::new();
    let mut from = std::io::BufReader::new(from).take(MAX_BYTES);
    from.read_until(b'\n', &mut line)
        .context("it cannot be read")?;
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
            let read = first_line(text.as_bytes()).unwrap();
            let read = read.as_ref().map(ExposeSecret::expose_secret);
            assert_eq!(read, expected, "{text:?}");
        }
        assert!(first_line(&b"\xff\n"[..]).is_err());
        assert_eq!(Password::generate().secret.expose_secret().len(), 32);
    }
}
