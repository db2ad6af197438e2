//! Requirements of a route on the user and on their sign-in.

use super::References;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::routing::route as file;
use crate::routing::{Requirements, SignInRequirements};

/// Resolves the requirements of a route.
pub(super) fn requirements(
    raw: &file::Require,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Requirements {
    let sign_in = SignInRequirements {
        providers: raw.providers.clone(),
        acr: raw.acr.clone(),
        max_age: raw
            .max_auth_age
            .map(|age| context.require_positive(&location.key("max_auth_age"), age)),
    };
    let providers = location.key("providers");
    for (index, name) in raw.providers.iter().enumerate() {
        if !references.providers.contains(&name.as_str()) {
            let names = references.providers.iter().copied();
            context.unknown_reference(&providers.item(index), "provider", name, names);
        }
    }
    let acr = location.key("acr");
    for (index, value) in raw.acr.iter().enumerate() {
        if !is_sent_as_is(value) {
            let message = "an acr value must consist of visible ASCII characters without spaces, \
                           quotes and backslashes";
            context.error(&acr.item(index), message);
        }
    }
    Requirements {
        roles: raw.roles.clone(),
        scopes: raw.scopes.clone(),
        sign_in: (sign_in != SignInRequirements::default()).then(|| Box::new(sign_in)),
    }
}

/// Whether a value can stand in the list of a challenge and of an authorization request.
fn is_sent_as_is(value: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !value.is_empty() && value.bytes().all(is_allowed)
}
