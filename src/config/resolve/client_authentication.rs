//! ID and authentication of the gateway at an authorization server.

use secrecy::SecretString;

use crate::auth::token::{Algorithm, Key};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider::{ClientKey, ClientKeyAlgorithm};
use crate::config::keys::{self, WrittenKey};
use crate::config::units::Secret;
use crate::settings::provider::ClientAuthentication;

/// How a client authenticates, as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientFields<'a> {
    pub(super) method: ClientMethod,
    pub(super) secret: Option<&'a Secret>,
    pub(super) secret_file: Option<&'a str>,
    pub(super) key: Option<&'a ClientKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientMethod {
    SecretBasic,
    SecretPost,
    PrivateKey,
    None,
}

impl ClientMethod {
    fn name(self) -> &'static str {
        match self {
            ClientMethod::SecretBasic => "client_secret_basic",
            ClientMethod::SecretPost => "client_secret_post",
            ClientMethod::PrivateKey => "private_key_jwt",
            ClientMethod::None => "none",
        }
    }

    fn takes_secret(self) -> bool {
        matches!(self, ClientMethod::SecretBasic | ClientMethod::SecretPost)
    }
}

/// Resolves the client ID (RFC 6749, appendix A.1).
pub(super) fn client_id(
    raw: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> String {
    let is_printable = |byte: u8| (0x20..=0x7e).contains(&byte);
    if !raw.bytes().all(is_printable) || raw.trim() != raw {
        let message = "\"client_id\" must be printable ASCII without spaces at its ends";
        context.error(&location.key("client_id"), message);
    }
    raw.to_owned()
}

/// Resolves the client's authentication.
pub(super) fn authentication(
    raw: ClientFields<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ClientAuthentication> {
    check_unused(raw, location, context);
    match raw.method {
        ClientMethod::SecretBasic => {
            secret(raw, location, context).map(ClientAuthentication::SecretBasic)
        }
        ClientMethod::SecretPost => {
            secret(raw, location, context).map(ClientAuthentication::SecretPost)
        }
        ClientMethod::PrivateKey => {
            key(raw, location, context).map(ClientAuthentication::PrivateKey)
        }
        ClientMethod::None => Some(ClientAuthentication::None),
    }
}

fn check_unused(raw: ClientFields<'_>, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    let name = raw.method.name();
    if !raw.method.takes_secret() {
        for (key, is_given) in [
            ("client_secret", raw.secret.is_some()),
            ("client_secret_file", raw.secret_file.is_some()),
        ] {
            if is_given {
                let message = format!("\"client_auth: {name}\" takes no secret");
                context.error_at_key(&location.key(key), message);
            }
        }
    }
    if raw.method != ClientMethod::PrivateKey && raw.key.is_some() {
        let message = format!("\"client_auth: {name}\" takes no key");
        context.error_at_key(&location.key("client_key"), message);
    }
}

fn secret(
    raw: ClientFields<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<SecretString> {
    if raw.secret.is_none() && raw.secret_file.is_none() {
        let message = format!(
            "\"client_auth: {}\" requires \"client_secret\" or \"client_secret_file\"",
            raw.method.name()
        );
        context.error(location, message);
    }
    context.read_secret(location, "client_secret", raw.secret, raw.secret_file)
}

fn key(
    raw: ClientFields<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Key> {
    let Some(written) = raw.key else {
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

fn algorithm(raw: ClientKeyAlgorithm) -> Algorithm {
    match raw {
        ClientKeyAlgorithm::ES256 => Algorithm::ES256,
        ClientKeyAlgorithm::RS256 => Algorithm::RS256,
        ClientKeyAlgorithm::PS256 => Algorithm::PS256,
        ClientKeyAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
