//! `portcullis keys`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand, ValueEnum};
use zeroize::Zeroizing;

use super::print;
use crate::auth::sealing::KEY_BYTES;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Generate a key for `tokens.signing` or `encryption`
    ///
    /// Prints a PEM private key (PKCS #8), for HS256 a random secret, and for A256GCM, the
    /// algorithm of `encryption.key`, 32 random bytes in base64.
    ///
    /// Example: portcullis keys generate --algorithm EdDSA --out signing.pem
    #[command(verbatim_doc_comment)]
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// The algorithm of the key
    #[arg(long, value_enum, ignore_case = true, default_value = "EdDSA")]
    algorithm: Algorithm,
    /// Write to a new file, readable only by its owner, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Algorithm {
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "A256GCM")]
    A256Gcm,
}

/// Runs a command about keys.
pub(super) fn run(command: &KeysCommand) -> anyhow::Result<()> {
    let KeysCommand::Generate(args) = command;
    let key = generate(args.algorithm).context("cannot generate a key")?;
    match &args.out {
        None => print(&key),
        Some(path) => {
            write_new(path, &key).with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

/// Generates a key as text that ends with a line break.
pub(super) fn generate(algorithm: Algorithm) -> anyhow::Result<Zeroizing<String>> {
    let rsa: Pkcs8V1Der<'_>;
    let document;
    let private = match algorithm {
        Algorithm::Hs256 => {
            let secret = Zeroizing::new(rand::random::<[u8; 48]>());
            return Ok(Zeroizing::new(
                URL_SAFE_NO_PAD.encode(secret.as_slice()) + "\n",
            ));
        }
        Algorithm::A256Gcm => {
            let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
            return Ok(Zeroizing::new(STANDARD.encode(key.as_slice()) + "\n"));
        }
        Algorithm::EdDsa => {
            document = Ed25519KeyPair::generate()?.to_pkcs8v1()?;
            document.as_ref()
        }
        Algorithm::Es256 => {
            document = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?.to_pkcs8v1()?;
            document.as_ref()
        }
        Algorithm::Rs256 => {
            rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa3072)?.as_der()?;
            rsa.as_ref()
        }
    };
    Ok(pem(private))
}

/// Encodes a private key as PEM (RFC 7468), in lines of 64 characters.
fn pem(der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::from("-----BEGIN PRIVATE KEY-----\n"));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

/// Writes a new file that only its owner can read. An existing file is never overwritten, because it may be the key in use.
pub(super) fn write_new(path: &Path, key: &str) -> std::io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()
}

/// Creates a file that only its owner can read.
pub(super) fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::sealing::SealingKey;
    use crate::auth::token;

    #[test]
    fn generated_keys_can_sign() {
        for (algorithm, token_algorithm) in [
            (Algorithm::EdDsa, token::Algorithm::EdDSA),
            (Algorithm::Es256, token::Algorithm::ES256),
            (Algorithm::Rs256, token::Algorithm::RS256),
        ] {
            let pem = generate(algorithm).unwrap();
            let key = token::Key::from_pem(None, token_algorithm, pem.as_bytes()).unwrap();
            assert!(key.can_sign(), "{token_algorithm}");
        }
        let secret = generate(Algorithm::Hs256).unwrap();
        assert!(token::Key::hmac(None, secret.trim_end().as_bytes()).is_ok());
    }

    #[test]
    fn generated_sealing_keys_are_random() {
        let keys = [(); 2].map(|()| {
            let text = generate(Algorithm::A256Gcm).unwrap();
            SealingKey::from_base64(text.trim_end()).unwrap()
        });
        let [first, second] = keys;
        assert_ne!(first, second);
    }
}
