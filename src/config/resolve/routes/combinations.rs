//! Checks of combinations of a route's settings.

use super::References;
use crate::auth::credential::CredentialType;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::routing::route as file;
use crate::config::file::storage::Algorithm;

/// Reports settings of a route that others, in the route or in the file, make meaningless.
pub(super) fn check(
    raw: &file::Route,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if raw.strip_prefix && raw.matches.prefix.is_none() {
        let message = "\"strip_prefix\" needs \"match.prefix\"";
        context.error_at_key(&location.key("strip_prefix"), message);
    }
    let require = &raw.require;
    let lists = [
        &require.roles,
        &require.scopes,
        &require.providers,
        &require.acr,
    ];
    let requires = lists.iter().any(|list| !list.is_empty()) || require.max_auth_age.is_some();
    if raw.auth == file::Auth::None && requires {
        let message = "\"require\" needs the user, who is unknown with \"auth: none\"";
        context.error_at_key(&location.key("require"), message);
    }
    check_accept(raw, location, context);
    let at = location.key("on_unauthenticated");
    match &raw.on_unauthenticated {
        file::OnUnauthenticated::Word(file::OnUnauthenticatedWord::Refuse) => {}
        file::OnUnauthenticated::Word(file::OnUnauthenticatedWord::Redirect) => {
            check_redirect(raw.auth, references.has_sign_in_page, &at, context);
        }
        file::OnUnauthenticated::Page(_) if raw.auth == file::Auth::None => {
            let message = "\"on_unauthenticated\" has no effect with \"auth: none\"";
            context.error_at_key(&at, message);
        }
        file::OnUnauthenticated::Page(_) => {}
    }
    if raw.provider_token.is_some() {
        check_provider_token(
            raw.auth,
            references,
            &location.key("provider_token"),
            context,
        );
    }
    if raw.oauth_resource && raw.auth == file::Auth::None {
        let message = "\"oauth_resource\" has no effect with \"auth: none\"";
        context.error_at_key(&location.key("oauth_resource"), message);
    }
    if raw.assertion {
        check_assertion(
            raw.auth,
            references.signing,
            &location.key("assertion"),
            context,
        );
    }
}

fn check_accept(raw: &file::Route, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    let Some(accepted) = &raw.accept else {
        return;
    };
    if raw.auth == file::Auth::None {
        let message = "\"accept\" has no effect with \"auth: none\"";
        context.error_at_key(&location.key("accept"), message);
    }
    let redirect = file::OnUnauthenticated::Word(file::OnUnauthenticatedWord::Redirect);
    let session = CredentialType::Session.as_str();
    if raw.on_unauthenticated == redirect && !accepted.iter().any(|name| name == session) {
        let message = "\"on_unauthenticated: redirect\" signs users in with a session, which \
                       \"accept\" leaves out";
        context.error_at_key(&location.key("on_unauthenticated"), message);
    }
}

fn check_redirect(
    auth: file::Auth,
    has_sign_in_page: bool,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if auth == file::Auth::None {
        let message = "\"on_unauthenticated: redirect\" has no effect with \"auth: none\"";
        context.error_at_key(location, message);
    }
    if !has_sign_in_page {
        let message = "\"on_unauthenticated: redirect\" needs the gateway's own endpoints, and \
                       \"api\" is null";
        context.error_at_key(location, message);
    }
}

fn check_provider_token(
    auth: file::Auth,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if auth == file::Auth::None {
        let message = "\"provider_token\" needs the session, which is unknown with \"auth: none\"";
        context.error_at_key(location, message);
    }
    if !references.seals_tokens {
        let message = "\"provider_token\" requires \"encryption.key\", with which the tokens are sealed; \
                       `portcullis keys generate --algorithm A256GCM` creates one";
        context.error_at_key(location, message);
    } else if !references.keeps_tokens {
        let message = "\"provider_token\" requires a provider with \"tokens.keep: true\"";
        context.error_at_key(location, message);
    }
}

fn check_assertion(
    auth: file::Auth,
    signing: Option<Algorithm>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if auth == file::Auth::None {
        let message = "\"assertion\" needs the user, who is unknown with \"auth: none\"";
        context.error_at_key(location, message);
    }
    let message = match signing {
        Some(Algorithm::HS256) => {
            "\"assertion\" needs a key pair: \"tokens.signing\" must be EdDSA, ES256 or RS256, \
             because HS256 has no public key"
        }
        Some(_) => return,
        None => "\"assertion\" needs \"tokens.signing\", the key that signs it",
    };
    context.error_at_key(location, message);
}
