//! What the gateway requests of a provider, and the form of the results.

use super::References;
use crate::auth::token::Algorithm;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider as file;
use crate::settings::provider::{Par, ProviderKind, ResponseMode};

const GITHUB_SCOPES: [&str; 3] = ["read:user", "user:email", "read:org"];

/// Parameters of an authorization request that the gateway sets itself, or that would change what
/// it checks.
const OWN_PARAMETERS: [&str; 17] = [
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "request",
    "request_uri",
    "iss",
    "dpop_jkt",
];

/// Resolves the scopes (RFC 6749, section 3.3).
pub(super) fn scopes(
    raw: &file::Provider,
    kind: ProviderKind,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<String> {
    let location = location.key("scopes");
    if kind == ProviderKind::GitHub && !context.source_map.contains(&location) {
        return GITHUB_SCOPES.map(str::to_owned).to_vec();
    }
    let is_token = |text: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        !text.is_empty() && text.bytes().all(is_allowed)
    };
    for (index, scope) in raw.scopes.iter().enumerate() {
        if !is_token(scope) {
            let message = "a scope must be visible ASCII without spaces, quotes and backslashes";
            context.error(&location.item(index), message);
        } else if raw.scopes.iter().take(index).any(|other| other == scope) {
            context.error(&location.item(index), "duplicate scope");
        }
    }
    let has_openid = raw.scopes.iter().any(|scope| scope == "openid");
    if kind == ProviderKind::Oidc && !has_openid {
        let message = "kind \"oidc\" requires the scope \"openid\", without which there is no ID \
                       token";
        context.error(&location, message);
    }
    raw.scopes.clone()
}

/// Resolves further parameters of authorization requests.
pub(super) fn parameters(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<(String, String)> {
    let location = location.key("authorization_params");
    let mut all = Vec::new();
    for (name, value) in &raw.authorization_params {
        let at = location.key(name);
        let value = match value {
            file::Parameter::Text(text) => text.clone(),
            file::Parameter::Number(number) => number.to_string(),
        };
        if OWN_PARAMETERS.contains(&name.as_str()) {
            let message = format!("the protocol itself sets \"{name}\"");
            context.error_at_key(&at, message);
        } else if name.is_empty() || name.chars().any(char::is_control) {
            context.error_at_key(&at, "not the name of a parameter");
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            context.error(&at, "a parameter must have a value in one line");
        }
        if name == "max_age" && value.parse::<u32>().is_err() {
            let message = "\"max_age\" must be a whole number of seconds";
            context.error(&at, message);
        }
        all.push((name.clone(), value));
    }
    all
}

/// Checks that the provider and the cookie allow the response mode and pushed requests.
pub(super) fn check_mode(
    raw: &file::Provider,
    references: References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let at = location.key("response_mode");
    let kind = references.kind;
    if raw.response_mode == file::ResponseMode::FormPost && !references.file.sessions.cookie.secure
    {
        let message = "\"form_post\" requires \"sessions.cookie.secure: true\"; browsers send the \
                       flow's cookie with a form of another site only if it is secure";
        context.error(&at, message);
    }
    match (kind, raw.response_mode) {
        (ProviderKind::GitHub, file::ResponseMode::FormPost | file::ResponseMode::Jwt) => {
            context.error(&at, "GitHub supports the response mode \"query\" only");
        }
        (ProviderKind::OAuth2, file::ResponseMode::Jwt)
            if raw.issuer.is_none() || raw.endpoints.jwks.is_none() =>
        {
            let message = "\"jwt\" requires \"issuer\" and \"endpoints.jwks\", by which the \
                           response is verified";
            context.error(&at, message);
        }
        _ => {}
    }
    if kind != ProviderKind::Oidc
        && raw.par == file::Par::Fixed(true)
        && raw.endpoints.par.is_none()
    {
        let message = "\"par: true\" requires \"endpoints.par\"";
        context.error(&location.key("par"), message);
    }
}

pub(super) fn response_mode(raw: file::ResponseMode) -> ResponseMode {
    match raw {
        file::ResponseMode::Query => ResponseMode::Query,
        file::ResponseMode::FormPost => ResponseMode::FormPost,
        file::ResponseMode::Jwt => ResponseMode::Jwt,
    }
}

pub(super) fn par(raw: file::Par) -> Par {
    match raw {
        file::Par::Auto(file::Auto::Auto) => Par::Auto,
        file::Par::Fixed(true) => Par::Always,
        file::Par::Fixed(false) => Par::Never,
    }
}

/// Resolves the audiences of ID tokens beside the client ID.
pub(super) fn audiences(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<String> {
    let location = location.key("extra_audiences");
    for (index, audience) in raw.extra_audiences.iter().enumerate() {
        let at = location.item(index);
        if audience.is_empty() {
            context.error(&at, "an audience must not be empty");
        } else if *audience == raw.client_id {
            context.error(&at, "this is the client ID, which is required in any case");
        }
    }
    raw.extra_audiences.clone()
}

/// Resolves the algorithms of the provider's tokens.
pub(super) fn algorithms(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<Algorithm> {
    let location = location.key("algorithms");
    let mut all = Vec::new();
    for (index, one) in raw.algorithms.iter().enumerate() {
        let algorithm = match one {
            file::ProviderAlgorithm::RS256 => Algorithm::RS256,
            file::ProviderAlgorithm::ES256 => Algorithm::ES256,
            file::ProviderAlgorithm::EdDSA => Algorithm::EdDSA,
            file::ProviderAlgorithm::PS256 => Algorithm::PS256,
            file::ProviderAlgorithm::ES384 => Algorithm::ES384,
        };
        if all.contains(&algorithm) {
            context.error(&location.item(index), "duplicate algorithm");
        }
        all.push(algorithm);
    }
    all
}
