//! Authentication of the gateway at a provider.

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider as file;
use crate::config::resolve::client_authentication::{self, ClientFields, ClientMethod};
use crate::settings::provider::ClientAuthentication;

/// Resolves the client's authentication.
pub(super) fn authentication(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ClientAuthentication> {
    let method = match raw.client_auth {
        file::ClientAuth::ClientSecretBasic => ClientMethod::SecretBasic,
        file::ClientAuth::ClientSecretPost => ClientMethod::SecretPost,
        file::ClientAuth::PrivateKeyJwt => ClientMethod::PrivateKey,
        file::ClientAuth::None => ClientMethod::None,
    };
    let is_oidc = raw.kind == file::ProviderKind::Oidc;
    if method == ClientMethod::PrivateKey && !is_oidc && raw.issuer.is_none() {
        let message = "\"private_key_jwt\" requires \"issuer\", the audience of the assertion";
        context.error(&location.key("client_auth"), message);
    }
    let fields = ClientFields {
        method,
        secret: raw.client_secret.as_ref(),
        secret_file: raw.client_secret_file.as_deref(),
        key: raw.client_key.as_ref(),
    };
    client_authentication::authentication(fields, location, context)
}
