//! What a route says together.

use super::Known;
use crate::config::document::Place;
use crate::config::file::state::Algorithm;
use crate::config::file::traffic::route as file;
use crate::config::review::Review;

/// Reports what a route says that something else, in it or in the file, makes meaningless.
pub(super) fn check(
    written: &file::Route,
    known: &Known<'_>,
    place: &Place,
    review: &mut Review<'_>,
) {
    if written.strip_prefix && written.matches.prefix.is_none() {
        let message = "\"strip_prefix\" needs \"match.prefix\"";
        review.fault_at_key(&place.key("strip_prefix"), message);
    }
    let requires = !written.require.roles.is_empty() || !written.require.scopes.is_empty();
    if written.auth == file::Auth::None && requires {
        let message = "\"require\" needs to know the user, and \"auth: none\" asks for none";
        review.fault_at_key(&place.key("require"), message);
    }
    if written.on_unauthenticated == file::OnUnauthenticated::Redirect {
        let place = place.key("on_unauthenticated");
        check_redirect(written.auth, known.endpoints, &place, review);
    }
    if written.assertion {
        check_assertion(written.auth, known.signing, &place.key("assertion"), review);
    }
}

fn check_redirect(auth: file::Auth, endpoints: bool, place: &Place, review: &mut Review<'_>) {
    if auth == file::Auth::None {
        let message = "\"on_unauthenticated: redirect\" is for routes that ask who somebody is, and \
                       \"auth: none\" does not";
        review.fault_at_key(place, message);
    }
    if !endpoints {
        let message = "\"on_unauthenticated: redirect\" needs the gateway's own endpoints, and \
                       \"api\" is null";
        review.fault_at_key(place, message);
    }
}

fn check_assertion(
    auth: file::Auth,
    signing: Option<Algorithm>,
    place: &Place,
    review: &mut Review<'_>,
) {
    if auth == file::Auth::None {
        let message = "\"assertion\" needs to know the user, and \"auth: none\" asks for none";
        review.fault_at_key(place, message);
    }
    let message = match signing {
        Some(Algorithm::HS256) => {
            "\"assertion\" needs a key that upstreams can verify with: \"tokens.signing\" must be \
             EdDSA, ES256 or RS256, for HS256 has no public key"
        }
        Some(_) => return,
        None => "\"assertion\" needs \"tokens.signing\", the key that signs it",
    };
    review.fault_at_key(place, message);
}
