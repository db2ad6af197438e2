//! What a route says together.

use super::References;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::routing::route as file;
use crate::config::file::storage::Algorithm;

/// Reports what a route says that something else, in it or in the file, makes meaningless.
pub(super) fn check(
    written: &file::Route,
    known: &References<'_>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if written.strip_prefix && written.matches.prefix.is_none() {
        let message = "\"strip_prefix\" needs \"match.prefix\"";
        review.error_at_key(&place.key("strip_prefix"), message);
    }
    let requires = !written.require.roles.is_empty() || !written.require.scopes.is_empty();
    if written.auth == file::Auth::None && requires {
        let message = "\"require\" needs to know the user, and \"auth: none\" asks for none";
        review.error_at_key(&place.key("require"), message);
    }
    if written.on_unauthenticated == file::OnUnauthenticated::Redirect {
        let place = place.key("on_unauthenticated");
        check_redirect(written.auth, known.endpoints, &place, review);
    }
    if written.assertion {
        check_assertion(written.auth, known.signing, &place.key("assertion"), review);
    }
}

fn check_redirect(
    auth: file::Auth,
    endpoints: bool,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if auth == file::Auth::None {
        let message = "\"on_unauthenticated: redirect\" is for routes that ask who somebody is, and \
                       \"auth: none\" does not";
        review.error_at_key(place, message);
    }
    if !endpoints {
        let message = "\"on_unauthenticated: redirect\" needs the gateway's own endpoints, and \
                       \"api\" is null";
        review.error_at_key(place, message);
    }
}

fn check_assertion(
    auth: file::Auth,
    signing: Option<Algorithm>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if auth == file::Auth::None {
        let message = "\"assertion\" needs to know the user, and \"auth: none\" asks for none";
        review.error_at_key(place, message);
    }
    let message = match signing {
        Some(Algorithm::HS256) => {
            "\"assertion\" needs a key that upstreams can verify with: \"tokens.signing\" must be \
             EdDSA, ES256 or RS256, for HS256 has no public key"
        }
        Some(_) => return,
        None => "\"assertion\" needs \"tokens.signing\", the key that signs it",
    };
    review.error_at_key(place, message);
}
