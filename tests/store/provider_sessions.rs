//! Sessions that signed in at a provider.

use std::sync::Arc;

use portcullis::auth::provider_sign_in::ProviderSignIn;
use portcullis::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionEnd};
use portcullis::store::{Amendment, SessionIdentity, Store, StoreError};

use crate::support::{IDLE, engines, session};

pub(crate) fn provider_session(user: &str, sid: Option<&str>, now: Millis) -> Session {
    Session {
        provider: Some(Arc::new(ProviderSignIn {
            provider: "corp".into(),
            subject: user.to_owned(),
            sid: sid.map(str::to_owned),
            authenticated_at: now - 1_000,
            acr: Some("mfa".into()),
            amr: ["pwd".to_owned(), "o\"tp\0".to_owned()].into(),
        })),
        ..session(user, now)
    }
}

async fn create(store: &Store, session: &Session) {
    let created = store.create_session(session, None, 5, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
}

#[tokio::test]
async fn provider_sign_in_survives_every_change() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let written = provider_session("ann", Some("one"), now);
        create(&store, &written).await;
        let read = async || store.session(written.id).await.unwrap().unwrap().session;
        assert_eq!(read().await, written);
        let amendment = Amendment {
            device_name: Some("phone".to_owned()),
            ..Amendment::default()
        };
        let amended = store.amend_session(written.id, &amendment, IDLE);
        amended.await.unwrap();
        assert_eq!(read().await.provider, written.provider);
        let identity = SessionIdentity {
            version: 1,
            email: "new@example.com",
            name: None,
            roles: &[],
            scopes: &[],
        };
        store.set_identity(&[written.id], identity).await.unwrap();
        let changed = read().await;
        assert_eq!(changed.provider, written.provider);
        assert_eq!(changed.email, "new@example.com");
        let ended = store.revoke(written.id, EndReason::Backchannel, IDLE);
        assert!(ended.await.unwrap());
        let ended = read().await;
        assert_eq!(ended.provider, written.provider);
        let reason = ended.ended.map(|SessionEnd { reason, .. }| reason);
        assert_eq!(reason, Some(EndReason::Backchannel));
    }
}

#[tokio::test]
async fn identity_that_no_record_can_hold_changes_nothing() {
    let (_server, stores) = engines().await;
    // The embedded engine has no such limit.
    for store in stores.into_iter().skip(1) {
        let now = store.now().await.unwrap();
        let written = provider_session("ann", Some("one"), now);
        create(&store, &written).await;
        let large: Vec<String> = (0..500).map(|n| format!("{n:0140}")).collect();
        for (roles, scopes) in [(&large[..], &[][..]), (&[], &large)] {
            let identity = SessionIdentity {
                version: 1,
                email: "new@example.com",
                name: None,
                roles,
                scopes,
            };
            let set = store.set_identity(&[written.id], identity).await;
            assert_eq!(set, Err(StoreError::Refused));
            let read = store.session(written.id).await.unwrap().unwrap();
            assert_eq!(read.session, written);
        }
    }
}
