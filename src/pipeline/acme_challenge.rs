//! Responses to the challenges of certificate authorities. Any gateway of the fleet gives them,
//! whichever one has ordered the certificate.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use super::Step;
use super::facts::RequestFacts;
use crate::settings::acme::ChallengeKind;
use crate::settings::{Boot, Reloadable, ReloadableListener};
use crate::store::{AcmeChallenge, Store};
use crate::tls;

/// Where authorities request responses to `http-01` (RFC 8555, section 8.3).
const HTTP_PREFIX: &str = "/.well-known/acme-challenge/";
/// Maximum length of a token; they have at least 22 characters.
const MAX_TOKEN: usize = 256;

/// Returns the token of a request that may be an authority's. Only plain listeners receive those.
pub(super) fn requested_token<'a>(
    facts: &RequestFacts<'a>,
    boot: &Boot,
    settings: &Reloadable,
) -> Option<&'a str> {
    let token = facts.head.path.strip_prefix(HTTP_PREFIX)?;
    let is_read = matches!(*facts.head.method, Method::GET | Method::HEAD);
    let is_plain = !facts.is_query() && !boot.listener(facts.listener)?.tls;
    let mut of_listeners = settings.served_listeners().filter_map(challenge_kind);
    let is_used = of_listeners.any(|kind| kind == ChallengeKind::Http);
    (is_read && is_plain && is_used && is_token(token)).then_some(token)
}

/// The response to an authority; `None`: no order is in progress that has this token, so that the
/// request is decided as any other.
pub(super) async fn respond(token: &str, store: &Store) -> Option<Step> {
    let challenge = AcmeChallenge::Http(token.to_owned());
    let response = find_response(store, &challenge).await?;
    let content_type = HeaderValue::from_static("application/octet-stream");
    let headers = vec![
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Some(Step::Respond(
        StatusCode::OK,
        headers,
        Bytes::from(response),
    ))
}

/// Whether handshakes on a listener may be those of an authority.
pub fn expects_handshakes(listener: &ReloadableListener) -> bool {
    challenge_kind(listener) == Some(ChallengeKind::TlsAlpn)
}

/// The configuration with which an authority's handshake for a domain is completed; `None`: no order
/// of this domain is in progress.
pub async fn handshake_config(
    domain: &str,
    listener: &ReloadableListener,
    store: &Store,
) -> Option<Arc<rustls::ServerConfig>> {
    let domains = &listener.acme.as_ref()?.settings.domains;
    if !domains.iter().any(|one| one == domain) {
        return None;
    }
    let challenge = AcmeChallenge::Tls(domain.to_owned());
    let key_authorization = find_response(store, &challenge).await?;
    let config = tls::challenge_config(domain, &key_authorization);
    config
        .inspect_err(|error| tracing::warn!(%error, domain, "a challenge cannot be responded to"))
        .ok()
}

async fn find_response(store: &Store, challenge: &AcmeChallenge) -> Option<String> {
    let response = store.acme_response(challenge).await;
    response.unwrap_or_else(|error| {
        tracing::debug!(%error, "the response to a challenge cannot be read");
        None
    })
}

fn challenge_kind(listener: &ReloadableListener) -> Option<ChallengeKind> {
    listener.acme.as_ref().map(|acme| acme.settings.challenge)
}

/// Whether a text is a token: base64url without padding (RFC 8555, section 8.1).
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_base64url() {
        for (text, expected) in [
            ("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", true),
            ("a-_9", true),
            ("", false),
            ("a/b", false),
            ("a.b", false),
            ("a%41", false),
            ("a=", false),
            ("*", false),
            (&"a".repeat(256), true),
            (&"a".repeat(257), false),
        ] {
            assert_eq!(is_token(text), expected, "{text}");
        }
    }
}
