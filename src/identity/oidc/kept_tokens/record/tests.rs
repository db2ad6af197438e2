#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::auth::sealing::SealingKey;
use crate::identity::oidc::fixtures::{oauth2_provider, provider};

const ISSUER: &str = "https://id.example";
const NOW: Millis = 1_800_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn response(access_token: &str, refresh_token: Option<&str>) -> TokenResponse {
    TokenResponse {
        access_token: access_token.into(),
        id_token: None,
        refresh_token: refresh_token.map(SecretString::from),
        expires_in: Some(MINUTE),
    }
}

fn tokens() -> KeptTokens {
    let response = TokenResponse {
        id_token: Some("id-1".into()),
        ..response("access-1", Some("refresh-1"))
    };
    KeptTokens::of_sign_in(&provider(ISSUER), &response, Some(NOW + 30_000), NOW)
}

fn ring(byte: u8, older: &[u8]) -> KeyRing {
    let key = |byte: u8| SealingKey::new([byte; 32]);
    KeyRing {
        current: key(byte),
        older: older.iter().copied().map(key).collect(),
    }
}

#[test]
fn sealed_tokens_open_for_their_session_only() {
    let (one, other) = (SessionId([1; 32]), SessionId([2; 32]));
    let mut tokens = tokens();
    tokens.fail(NOW);
    tokens.progress = Progress::Exchanging { until: NOW + 1 };
    let sealed = tokens.seal(&ring(1, &[]), one).unwrap();
    let (opened, is_outdated) = KeptTokens::open(&ring(1, &[]), one, &sealed).unwrap();
    assert_eq!(*opened.encode().unwrap(), *tokens.encode().unwrap());
    assert!(!is_outdated);
    assert!(KeptTokens::open(&ring(1, &[]), other, &sealed).is_none());
    assert!(KeptTokens::open(&ring(2, &[]), one, &sealed).is_none());
    assert!(KeptTokens::open(&ring(2, &[1]), one, &sealed).unwrap().1);
    for secret in ["access-1", "id-1", "refresh-1", "corp"] {
        let secret = secret.as_bytes();
        assert!(!sealed.windows(secret.len()).any(|part| part == secret));
    }
}

#[test]
fn token_is_usable_with_ten_seconds_left() {
    let tokens = tokens();
    let check = |kind, now, expected| {
        let usable = tokens.usable(kind, now).is_some();
        assert_eq!(usable, expected, "{kind:?} {now}");
        assert_eq!(tokens.satisfies(Purpose::Forward(kind), now), expected);
    };
    check(ProviderTokenKind::Access, NOW, true);
    check(ProviderTokenKind::Access, NOW + 50_000, true);
    check(ProviderTokenKind::Access, NOW + 50_001, false);
    check(ProviderTokenKind::Id, NOW + 20_000, true);
    check(ProviderTokenKind::Id, NOW + 20_001, false);
    let endless = KeptTokens {
        access_expires_at: None,
        id_token: None,
        ..tokens.clone()
    };
    assert!(
        endless
            .usable(ProviderTokenKind::Access, Millis::MAX)
            .is_some()
    );
    assert!(endless.usable(ProviderTokenKind::Id, NOW).is_none());
    assert!(endless.has(ProviderTokenKind::Access) && !endless.has(ProviderTokenKind::Id));
}

#[test]
fn token_that_nothing_replaces_is_usable_until_it_expires() {
    let tokens = KeptTokens::of_sign_in(&provider(ISSUER), &response("a", None), None, NOW);
    let usable = |now| tokens.usable(ProviderTokenKind::Access, now).is_some();
    assert!(usable(NOW + 59_999));
    assert!(!usable(NOW + 60_000));
}

fn text(token: Option<&SecretString>) -> Option<&str> {
    token.map(ExposeSecret::expose_secret)
}

#[test]
fn successor_is_kept_before_the_session_is_confirmed() {
    let mut tokens = tokens();
    tokens.claim(NOW + 1);
    tokens.keep_successor(Some("refresh-2".into()), NOW + 2);
    assert_eq!(text(tokens.refresh_token.as_ref()), Some("refresh-2"));
    assert_eq!(tokens.access_token.expose_secret(), "access-1");
    assert_eq!(tokens.confirmed_at, NOW);
    assert_eq!(tokens.claimed_until(), NOW + 2);
    tokens.confirm(&response("access-2", None), None, NOW + 3);
    assert_eq!(tokens.access_token.expose_secret(), "access-2");
    assert_eq!(tokens.access_expires_at, Some(NOW + 60_003));
    assert_eq!((tokens.confirmed_at, tokens.claimed_until()), (NOW + 3, 0));
    // Without a successor, the refresh token stays.
    tokens.keep_successor(None, NOW + 4);
    assert_eq!(text(tokens.refresh_token.as_ref()), Some("refresh-2"));
    // An ID token that the provider does not renew is forwarded while it is valid.
    assert!(!tokens.has(ProviderTokenKind::Id));
    assert!(tokens.usable(ProviderTokenKind::Id, NOW).is_some());
}

#[test]
fn short_lived_tokens_of_an_exchange_are_shared() {
    let mut tokens = tokens();
    let short = TokenResponse {
        expires_in: Some(Duration::from_secs(5)),
        ..response("access-2", None)
    };
    tokens.confirm(&short, None, NOW);
    let usable = |now| tokens.usable(ProviderTokenKind::Access, now).is_some();
    assert!(usable(NOW) && usable(NOW + 1999));
    assert!(!usable(NOW + 2000));
    let expired = TokenResponse {
        expires_in: Some(Duration::ZERO),
        ..response("access-3", None)
    };
    tokens.confirm(&expired, None, NOW);
    assert!(tokens.usable(ProviderTokenKind::Access, NOW).is_none());
}

#[test]
fn exchange_without_an_outcome_is_doubtful() {
    let mut tokens = tokens();
    tokens.claim(NOW + 1);
    assert!(!tokens.is_doubtful);
    let mut lost = tokens.clone();
    lost.claim(NOW + 2);
    assert!(lost.is_doubtful);
    // A later failure does not clear the doubt, a successor does.
    lost.fail(NOW + 3);
    assert!(lost.is_doubtful);
    lost.keep_successor(Some("refresh-2".into()), NOW);
    assert!(!lost.is_doubtful);
    // While the response is evaluated, the successor is kept already.
    lost.claim(NOW + 4);
    assert!(!lost.is_doubtful);
    tokens.fail(NOW + 2);
    tokens.claim(NOW + 3);
    assert!(!tokens.is_doubtful);
}

#[test]
fn recheck_is_due_after_its_interval_and_growing_pauses() {
    let purpose = Purpose::Recheck(MINUTE);
    let mut tokens = tokens();
    assert!(tokens.satisfies(purpose, NOW + 59_999));
    assert!(!tokens.satisfies(purpose, NOW + 60_000));
    assert_eq!(tokens.due_at(purpose), NOW + 60_000);
    let mut now = NOW + 70_000;
    for pause in [10, 20, 40, 80, 160, 300, 300] {
        tokens.fail(now);
        assert_eq!(tokens.due_at(purpose), now + pause * 1000);
        assert_eq!(
            tokens.due_at(Purpose::Forward(ProviderTokenKind::Access)),
            now + 1000
        );
        now += pause * 1000;
    }
    tokens.failures.as_mut().unwrap().count = u32::MAX;
    tokens.fail(now);
    assert_eq!(tokens.due_at(purpose), now + 300_000);
    tokens.confirm(&response("access-2", None), None, now);
    assert_eq!(tokens.due_at(purpose), now + 60_000);
    assert_eq!(tokens.due_at(Purpose::Forward(ProviderTokenKind::Id)), 0);
}

#[test]
fn session_lapses_after_the_first_failure() {
    let hour = RecheckOutage::For(Duration::from_secs(3600));
    let mut tokens = tokens();
    assert_eq!(tokens.lapses_at(hour), None);
    tokens.fail(NOW + 5);
    tokens.fail(NOW + 50);
    assert_eq!(tokens.lapses_at(hour), Some(NOW + 5 + 3_600_000));
    assert_eq!(tokens.lapses_at(RecheckOutage::Continue), None);
    tokens.confirm(&response("access-2", None), None, NOW + 60);
    assert_eq!(tokens.lapses_at(hour), None);
}

#[test]
fn tokens_are_those_of_one_issuer_and_client() {
    let kept = tokens();
    let own = provider(ISSUER);
    assert!(kept.are_of(&own));
    let another = |change: fn(&mut Provider)| {
        let mut settings = provider(ISSUER);
        change(&mut settings);
        settings
    };
    assert!(kept.are_of(&another(|it| it.tokens.keep = true)));
    for other in [
        provider("https://id.example/"),
        another(|it| it.name = "other".into()),
        another(|it| it.client_id = "other".to_owned()),
        oauth2_provider(ISSUER),
    ] {
        assert!(!kept.are_of(&other), "{other:?}");
    }
    let of = |base: &str| {
        KeptTokens::of_sign_in(&oauth2_provider(base), &response("a", None), None, NOW)
    };
    assert!(of("https://one.example").are_of(&oauth2_provider("https://one.example")));
    assert!(!of("https://one.example").are_of(&oauth2_provider("https://two.example")));
}

#[test]
fn id_token_that_was_not_verified_is_not_kept() {
    let unverified = TokenResponse {
        id_token: Some("id-2".into()),
        ..response("access-2", None)
    };
    let kept = KeptTokens::of_sign_in(&oauth2_provider(ISSUER), &unverified, None, NOW);
    assert!(kept.id_token.is_none() && !kept.has(ProviderTokenKind::Id));
    let mut kept = tokens();
    kept.confirm(&unverified, None, NOW);
    assert_eq!(text(kept.id_token.as_ref()), Some("id-1"));
}
