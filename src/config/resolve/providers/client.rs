//! ID and authentication of the gateway at a provider.

use crate::auth::token::Algorithm;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider as file;
use crate::config::keys::{self, WrittenKey};
use crate::settings::provider::ClientAuthentication;

/// Resolves the client ID (RFC 6749, appendix A.1).
pub(super) fn client_id(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> String {
    let is_printable = |byte: u8| (0x20..=0x7e).contains(&byte);
    if !raw.client_id.bytes().all(is_printable) || raw.client_id.trim() != raw.client_id {
        let message = "\"client_id\" must be printable ASCII without spaces at its ends";
        context.error(&location.key("client_id"), message);
    }
    raw.client_id.clone()
}

/// Resolves the client's authentication.
pub(super) fn authentication(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ClientAuthentication> {
    let takes_secret = matches!(
        raw.client_auth,
        file::ClientAuth::ClientSecretBasic | file::ClientAuth::ClientSecretPost
    );
    let name = method_name(raw.client_auth);
    if !takes_secret {
        for (key, is_given) in [
            ("client_secret", raw.client_secret.is_some()),
            ("client_secret_file", raw.client_secret_file.is_some()),
        ] {
            if is_given {
                let message = format!("\"client_auth: {name}\" takes no secret");
                context.error_at_key(&location.key(key), message);
            }
        }
    }
    let takes_key = raw.client_auth == file::ClientAuth::PrivateKeyJwt;
    if !takes_key && raw.client_key.is_some() {
        let message = format!("\"client_auth: {name}\" takes no key");
        context.error_at_key(&location.key("client_key"), message);
    }
    if takes_key && raw.kind != file::ProviderKind::Oidc && raw.issuer.is_none() {
        let message = "\"private_key_jwt\" requires \"issuer\", the audience of the assertion";
        context.error(&location.key("client_auth"), message);
    }
    match raw.client_auth {
        file::ClientAuth::ClientSecretBasic => {
            secret(raw, location, context).map(ClientAuthentication::SecretBasic)
        }
        file::ClientAuth::ClientSecretPost => {
            secret(raw, location, context).map(ClientAuthentication::SecretPost)
        }
        file::ClientAuth::PrivateKeyJwt => {
            key(raw, location, context).map(ClientAuthentication::PrivateKey)
        }
        file::ClientAuth::None => Some(ClientAuthentication::None),
    }
}

fn method_name(raw: file::ClientAuth) -> &'static str {
    match raw {
        file::ClientAuth::ClientSecretBasic => "client_secret_basic",
        file::ClientAuth::ClientSecretPost => "client_secret_post",
        file::ClientAuth::PrivateKeyJwt => "private_key_jwt",
        file::ClientAuth::None => "none",
    }
}

fn secret(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<secrecy::SecretString> {
    let (inline, file) = (
        raw.client_secret.as_ref(),
        raw.client_secret_file.as_deref(),
    );
    if inline.is_none() && file.is_none() {
        let message = format!(
            "\"client_auth: {}\" requires \"client_secret\" or \"client_secret_file\"",
            method_name(raw.client_auth)
        );
        context.error(location, message);
    }
    context.read_secret(location, "client_secret", inline, file)
}

fn key(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<crate::auth::token::Key> {
    let Some(written) = &raw.client_key else {
        let message = "\"client_auth: private_key_jwt\" requires \"client_key\"";
        context.error(location, message);
        return None;
    };
    let location = location.key("client_key");
    let (inline, file) = (written.key.as_ref(), written.key_file.as_deref());
    if inline.is_none() && file.is_none() {
        context.error(&location, "\"key\" or \"key_file\" is missing");
        return None;
    }
    let (id, algorithm) = (written.id.clone(), algorithm(written.algorithm));
    let written = WrittenKey {
        name: "key",
        inline,
        file,
    };
    let (key, at) = keys::read_key(written, id, algorithm, &location, context)?;
    if !key.can_sign() {
        let message = "a client authenticates with a private key, but this is a public key";
        context.error(&at, message);
        return None;
    }
    Some(key)
}

fn algorithm(raw: file::ClientKeyAlgorithm) -> Algorithm {
    match raw {
        file::ClientKeyAlgorithm::ES256 => Algorithm::ES256,
        file::ClientKeyAlgorithm::RS256 => Algorithm::RS256,
        file::ClientKeyAlgorithm::PS256 => Algorithm::PS256,
        file::ClientKeyAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
