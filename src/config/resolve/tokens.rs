use std::sync::Arc;

use secrecy::ExposeSecret;
use url::{Host, Url};

use crate::auth::token::{Algorithm, ClaimNames, Key, KeySource, Tokens, TrustedIssuer};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::storage as file;
use crate::config::keys;

/// Keys and issuers. `sign_in` says whether the gateway's own endpoints hand out tokens.
pub(super) fn tokens(
    written: &file::Tokens,
    sign_in: bool,
    review: &mut ResolveContext<'_>,
) -> Option<Arc<Tokens>> {
    let place = ConfigPath::root().key("tokens");
    let signing = match &written.signing {
        Some(key) => signing_key(key, &place.key("signing"), review).map(Some),
        None => check_unsigned(written, sign_in, &place, review),
    };
    let mut others = Some(Vec::new());
    for (index, older) in written.verify_also.iter().enumerate() {
        let key = key(older, &place.key("verify_also").item(index), review);
        others = others.zip(key).map(|(mut others, key)| {
            others.push(key);
            others
        });
    }
    let trusted = trusted_issuers(written, &place.key("trusted_issuers"), review);
    let key = |name| place.key(name);
    let issuer = review.require_non_empty(&key("issuer"), &written.issuer);
    let audience = review.require_non_empty(&key("audience"), &written.audience);
    let access_ttl = review.require_positive(&key("access_ttl"), written.access_ttl);
    let refresh_ttl = review.require_positive(&key("refresh_ttl"), written.refresh_ttl);
    let signing = signing?;
    let verifying = signing.iter().cloned().chain(others?).collect();
    Some(Arc::new(Tokens {
        issuer,
        audience,
        access_ttl,
        refresh_ttl,
        refresh_grace: written.refresh_grace.0,
        leeway: written.leeway.0,
        signing,
        verifying,
        trusted: trusted?,
    }))
}

/// No signing key is fine only where nothing is ever signed.
#[expect(clippy::option_option, reason = "a mistake, or validly no key")]
fn check_unsigned(
    written: &file::Tokens,
    sign_in: bool,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Option<Key>> {
    let message = match (sign_in, written.trusted_issuers.is_empty()) {
        (true, true) => "\"signing\" is missing: the key that signs the gateway's own tokens",
        (true, false) => {
            "\"signing\" is missing: without it the gateway's own endpoints cannot sign anybody \
             in; give it, or set \"api\" to null"
        }
        (false, true) => {
            "\"signing\" or \"trusted_issuers\" is missing: no token would be accepted"
        }
        (false, false) => return Some(None),
    };
    review.error(place, message);
    None
}

fn signing_key(
    written: &file::SigningKey,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Key> {
    let key = key(written, place, review)?;
    if !key.can_sign() {
        review.error(
            place,
            "signing needs the private key, and this is a public one",
        );
        return None;
    }
    Some(key)
}

fn key(
    written: &file::SigningKey,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Key> {
    let wants_secret = written.algorithm == file::Algorithm::HS256;
    let (wanted, unwanted) = if wants_secret {
        ("secret", "key")
    } else {
        ("key", "secret")
    };
    let given = |name: &str| match name {
        "secret" => (written.secret.as_ref(), written.secret_file.as_deref()),
        _ => (written.key.as_ref(), written.key_file.as_deref()),
    };
    let name = algorithm(written.algorithm);
    if given(unwanted) != (None, None) {
        let there = if given(unwanted).0.is_some() {
            unwanted.to_owned()
        } else {
            format!("{unwanted}_file")
        };
        review.error_at_key(
            &place.key(&there),
            format!("{name} takes a {wanted}, not a {unwanted}"),
        );
        return None;
    }
    let (inline, file) = given(wanted);
    if inline.is_none() && file.is_none() {
        review.error(
            place,
            format!("{name} needs \"{wanted}\" or \"{wanted}_file\""),
        );
        return None;
    }
    let material = review.read_secret(place, wanted, inline, file)?;
    let read = keys::parse_key(written.id.clone(), name, material.expose_secret());
    match read {
        Ok(key) => Some(key),
        Err(error) => {
            let at = if file.is_some() {
                format!("{wanted}_file")
            } else {
                wanted.to_owned()
            };
            review.error(&place.key(&at), keys::describe_error(&error));
            None
        }
    }
}

fn algorithm(written: file::Algorithm) -> Algorithm {
    match written {
        file::Algorithm::HS256 => Algorithm::HS256,
        file::Algorithm::RS256 => Algorithm::RS256,
        file::Algorithm::ES256 => Algorithm::ES256,
        file::Algorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn trusted_issuers(
    written: &file::Tokens,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Vec<Arc<TrustedIssuer>>> {
    let mut complete = Some(Vec::new());
    let mut names: Vec<&str> = vec![written.issuer.as_str()];
    for (index, one) in written.trusted_issuers.iter().enumerate() {
        let place = place.item(index);
        if names.contains(&one.issuer.as_str()) {
            let message = "another issuer has this name already; tokens could not be told apart";
            review.error(&place.key("issuer"), message);
        }
        names.push(&one.issuer);
        let issuer = trusted_issuer(one, &place, review);
        complete = complete.zip(issuer).map(|(mut all, issuer)| {
            all.push(Arc::new(issuer));
            all
        });
    }
    complete
}

fn trusted_issuer(
    written: &file::TrustedIssuer,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<TrustedIssuer> {
    let issuer = review.require_non_empty(&place.key("issuer"), &written.issuer);
    let audience = review.require_non_empty(&place.key("audience"), &written.audience);
    let user = review.require_non_empty(&place.key("claims").key("user"), &written.claims.user);
    let algorithms: Vec<Algorithm> = written.algorithms.iter().copied().map(algorithm).collect();
    let keys = key_source(written, &algorithms, place, review)?;
    Some(TrustedIssuer {
        issuer,
        keys,
        audience,
        algorithms,
        claims: ClaimNames {
            user,
            email: written.claims.email.clone(),
            roles: written.claims.roles.clone(),
            scopes: written.claims.scopes.clone(),
        },
        user_prefix: written.user_prefix.clone(),
        require_session: written.require_session,
    })
}

fn key_source(
    written: &file::TrustedIssuer,
    algorithms: &[Algorithm],
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<KeySource> {
    match (&written.jwks_url, &written.jwks_file) {
        (Some(url), None) => {
            if algorithms.contains(&Algorithm::HS256) {
                let message = "a key set that is fetched is public, and an HS256 key must not be";
                review.error(&place.key("algorithms"), message);
            }
            let url = parse_jwks_url(url);
            if url.is_none() {
                let message = "this must be an https:// address, or http:// on a loopback address";
                review.error(&place.key("jwks_url"), message);
            }
            url.map(KeySource::Url)
        }
        (None, Some(path)) => {
            let place = place.key("jwks_file");
            let bytes = review.read_file(&place, path)?;
            match crate::auth::token::parse_jwks(&bytes, algorithms) {
                Ok(keys) => Some(KeySource::File(keys)),
                Err(error) => {
                    let path = review.display_path(&place, path);
                    review.error(&place, format!("{path}: {}", keys::describe_error(&error)));
                    None
                }
            }
        }
        (None, None) => {
            review.error(place, "\"jwks_url\" or \"jwks_file\" is missing");
            None
        }
        (Some(_), Some(_)) => {
            let message = "give \"jwks_url\" or \"jwks_file\", not both";
            review.error_at_key(&place.key("jwks_file"), message);
            None
        }
    }
}

fn parse_jwks_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let plain = url.username().is_empty() && url.password().is_none();
    let safe = url.scheme() == "https" || url.scheme() == "http" && loopback;
    (plain && safe).then_some(url)
}
