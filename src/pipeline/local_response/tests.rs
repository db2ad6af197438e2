#![expect(clippy::unwrap_used, reason = "tests")]
use std::time::Duration;

use super::*;
use crate::pipeline::fields::tests::list;

#[test]
fn challenge_names_error_only_for_presented_bearer_token() {
    let text = |refusal: Refusal, presented: Option<&'static str>| {
        let list = list(presented.map(|value| ("Authorization", value)).as_slice());
        let mut headers = HeaderMap::new();
        let names_error = names_token_error(refusal, Fields::new(&list));
        write_challenge(&refusal.into(), names_error, &mut headers);
        let challenge = headers.remove(header::WWW_AUTHENTICATE);
        challenge.map(|value| value.to_str().unwrap().to_owned())
    };
    let (plain, bearer) = ("Bearer realm=\"portcullis\"", Some("bearer x"));
    for refusal in [
        Refusal::Unauthenticated,
        Refusal::InvalidCredentials,
        Refusal::RefreshTokenReused,
    ] {
        assert_eq!(text(refusal, bearer).unwrap(), plain);
    }
    for presented in [None, Some("Session x"), Some("Bearer")] {
        assert_eq!(text(Refusal::TokenExpired, presented).unwrap(), plain);
        assert_eq!(text(Refusal::SessionRevoked, presented).unwrap(), plain);
    }
    for refusal in [Refusal::TokenExpired, Refusal::SessionRevoked] {
        let named = text(refusal, bearer).unwrap();
        assert!(named.contains("error=\"invalid_token\""), "{named}");
    }
    assert!(
        text(Refusal::InsufficientScope, bearer)
            .unwrap()
            .contains("insufficient_scope")
    );
    assert_eq!(text(Refusal::Forbidden, bearer), None);
}

#[test]
fn retry_after_is_whole_seconds_and_at_least_one() {
    let seconds = |retry_after| {
        retry_after_seconds(&Rejection {
            retry_after,
            ..Refusal::RateLimited.into()
        })
    };
    assert_eq!(seconds(None), None);
    assert_eq!(seconds(Some(Duration::ZERO)), Some(1));
    assert_eq!(seconds(Some(Duration::from_millis(1001))), Some(2));
    assert_eq!(retry_after_seconds(&Refusal::Overloaded.into()), Some(1));
}
