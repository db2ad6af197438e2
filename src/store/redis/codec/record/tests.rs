#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::auth::provider_sign_in::ProviderSignIn;

fn session() -> Session {
    Session {
        id: SessionId([7; 32]),
        user: "u\0ser".to_owned(),
        email: "ann@example.com".to_owned(),
        username: None,
        name: Some(String::new()),
        roles: ["admin".to_owned(), "a\nb".to_owned()].into(),
        scopes: [].into(),
        created_at: 1_700_000_000_123,
        expires_at: 1_800_000_000_456,
        ip: "2001:db8::1".parse().unwrap(),
        user_agent: "Ünïcode".into(),
        device: Device {
            kind: None,
            name: Some("Ann's".into()),
        },
        ended: None,
        data: no_data(),
        revision: 3,
        provider: None,
        api_key: None,
    }
}

fn decoded(record: &[u8]) -> Option<Session> {
    match decode(SessionId([7; 32]), record, &Interner::default()) {
        DecodedRecord::Present(session) => Some(*session),
        DecodedRecord::Missing | DecodedRecord::Malformed => None,
    }
}

#[test]
fn record_round_trips() {
    let mut written = session();
    assert_eq!(decoded(&encode(&written).unwrap()).unwrap(), written);
    written.username = Some("ann".into());
    for name in [None, Some("Ann".to_owned())] {
        written.name = name;
        assert_eq!(decoded(&encode(&written).unwrap()).unwrap(), written);
    }
    written.data = r#"{"a":1}"#.into();
    written.ip = "192.0.2.1".parse().unwrap();
    for reason in EndReason::ALL {
        written.ended = Some(SessionEnd { at: 5, reason });
        assert_eq!(decoded(&encode(&written).unwrap()).unwrap(), written);
    }
}

fn provider_sign_in() -> ProviderSignIn {
    ProviderSignIn {
        provider: "corp".into(),
        subject: "248289761001".to_owned(),
        sid: Some("s\"1\0".to_owned()),
        authenticated_at: 1_699_999_999_000,
        acr: Some("urn:mfa".into()),
        amr: ["pwd".to_owned(), "otp".to_owned()].into(),
    }
}

fn signed_in_at_provider() -> Session {
    Session {
        provider: Some(Arc::new(provider_sign_in())),
        ..session()
    }
}

#[test]
fn provider_sign_in_round_trips() {
    let mut written = signed_in_at_provider();
    assert_eq!(decoded(&encode(&written).unwrap()).unwrap(), written);
    written.provider = Some(Arc::new(ProviderSignIn {
        sid: None,
        acr: None,
        amr: [].into(),
        ..provider_sign_in()
    }));
    assert_eq!(decoded(&encode(&written).unwrap()).unwrap(), written);
}

#[test]
fn record_without_provider_is_the_beginning_of_one_with_it() {
    let (without, with) = (session(), signed_in_at_provider());
    let (mut without, with) = (encode(&without).unwrap(), encode(&with).unwrap());
    without[44] |= HAS_PROVIDER;
    assert_eq!(with[..without.len()], without);
}

#[test]
fn record_of_wrong_length_is_rejected() {
    for session in [session(), signed_in_at_provider()] {
        let record = encode(&session).unwrap();
        for length in 0..record.len() {
            assert_eq!(decoded(&record[..length]), None, "{length}");
        }
        let mut longer = record;
        longer.push(0);
        assert_eq!(decoded(&longer), None);
    }
}

#[test]
fn oversized_text_is_rejected() {
    let long = Session {
        user_agent: "x".repeat(65_536).into(),
        ..session()
    };
    assert!(encode(&long).is_none());
    let long = Session {
        provider: Some(Arc::new(ProviderSignIn {
            subject: "x".repeat(65_536),
            ..provider_sign_in()
        })),
        ..session()
    };
    assert!(encode(&long).is_none());
}
