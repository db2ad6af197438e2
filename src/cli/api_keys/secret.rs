//! Where the secret of a key goes: to standard output alone, or to a file.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::{keys, output, print};
use crate::telemetry::printable::sanitize_line;

/// Options for the output of a new secret.
#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    /// Write the key to this new file, which only its owner can read, and print the ID
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON, in the form of the API, without the key if it goes to a file
    #[arg(long)]
    json: bool,
}

/// The output, opened before there is a secret, which could otherwise be lost.
pub(super) struct SecretOutput<'a> {
    args: &'a SecretArgs,
    file: Option<File>,
}

impl SecretOutput<'_> {
    pub(super) fn open(args: &SecretArgs) -> anyhow::Result<SecretOutput<'_>> {
        let file = args.out.as_deref().map(|path| {
            keys::create_private(path).with_context(|| format!("cannot create {}", path.display()))
        });
        Ok(SecretOutput {
            args,
            file: file.transpose()?,
        })
    }

    /// Writes the `key` of a response, or removes the file if there is none.
    pub(super) fn finish(self, response: anyhow::Result<Value>) -> anyhow::Result<()> {
        let response = response.inspect_err(|_| self.discard());
        let mut response = response?;
        let secret = response.get("key").and_then(Value::as_str);
        let secret = Zeroizing::new(secret.context("the response has no key")?.to_owned());
        let Some(mut file) = self.file else {
            return print(&match self.args.json {
                true => output::json(&response),
                false => format!("{}\n", sanitize_line(&secret)),
            });
        };
        let written = writeln!(file, "{}", secret.as_str()).and_then(|()| file.sync_all());
        let id = output::text_at(&response, "/api_key/id");
        written.with_context(|| {
            format!("the key {id} cannot be written to the file and is lost; rotate it")
        })?;
        print(&match self.args.json {
            true => {
                if let Some(members) = response.as_object_mut() {
                    members.remove("key");
                }
                output::json(&response)
            }
            false => format!("{id}\n"),
        })
    }

    /// Removes the file, which is empty.
    fn discard(&self) {
        if let (Some(path), Some(_)) = (&self.args.out, &self.file) {
            // It is empty; an error changes nothing.
            let _ = std::fs::remove_file(path);
        }
    }
}
