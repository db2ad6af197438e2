//! Logouts at providers: the sessions that they cover, sign-ins in progress, and used logout tokens.

use std::time::Duration;

use portcullis::auth::provider_logout::ProviderLogout;
use portcullis::auth::session::{EndReason, OnSessionLimit, Session, SessionId};
use portcullis::store::{LogoutTokenUse, Store};

use crate::provider_sessions::provider_session;
use crate::support::{IDLE, engines, session};

fn logout(provider: &str, sid: Option<&str>, subject: Option<&str>) -> ProviderLogout {
    ProviderLogout {
        provider: provider.into(),
        sid: sid.map(str::to_owned),
        subject: subject.map(str::to_owned),
    }
}

async fn write(store: &Store, session: &Session) {
    store.index_provider_sign_in(session).await.unwrap();
    let created = store.create_session(session, None, 50, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
}

async fn covered(store: &Store, logout: &ProviderLogout) -> Vec<SessionId> {
    let sessions = store.provider_sessions(logout).await.unwrap();
    let mut ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn logout_covers_sessions_by_sid_and_by_subject() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let with_sid = provider_session("ann", Some("s"), now);
        let same_sid = provider_session("ann", Some("s"), now);
        let other_sid = provider_session("ann", Some("t"), now);
        let without = provider_session("ann", None, now);
        let other_user = provider_session("bob", None, now);
        for session in [&with_sid, &same_sid, &other_sid, &without, &other_user] {
            write(&store, session).await;
        }
        // Signed in with a password.
        write(&store, &session("ann", now)).await;
        for (logout, expected) in [
            (logout("corp", Some("s"), None), vec![&with_sid, &same_sid]),
            (
                logout("corp", Some("s"), Some("ann")),
                vec![&with_sid, &same_sid, &without],
            ),
            (
                logout("corp", None, Some("ann")),
                vec![&with_sid, &same_sid, &other_sid, &without],
            ),
            (logout("other", Some("s"), Some("ann")), vec![]),
            (logout("corp", Some("ann"), None), vec![]),
        ] {
            let mut expected: Vec<SessionId> = expected.iter().map(|one| one.id).collect();
            expected.sort_unstable();
            assert_eq!(covered(&store, &logout).await, expected);
        }
        let ended = store.revoke(with_sid.id, EndReason::Backchannel, IDLE);
        ended.await.unwrap();
        let by_sid = logout("corp", Some("s"), None);
        assert_eq!(covered(&store, &by_sid).await, [same_sid.id]);
    }
}

#[tokio::test]
async fn index_of_sign_ins_is_bounded() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let mut sessions = Vec::new();
        for n in 0..20 {
            let mut one = provider_session(&format!("user-{n}"), Some("s"), now);
            one.expires_at += n;
            write(&store, &one).await;
            sessions.push(one.id);
        }
        let by_sid = covered(&store, &logout("corp", Some("s"), None)).await;
        assert_eq!(by_sid.len(), 16);
        // Those that last longest are kept.
        let lost = sessions.iter().filter(|id| !by_sid.contains(id)).copied();
        assert_eq!(lost.collect::<Vec<_>>(), sessions.split_at(4).0);
    }
}

#[tokio::test]
async fn logout_marks_the_sign_ins_that_it_covers() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let before = store.latest_logout().await.unwrap();
        let is_logged_out = async |user, sid, latest| {
            let sign_in = provider_session(user, sid, now).provider.unwrap();
            store.is_logged_out(&sign_in, latest).await.unwrap()
        };
        assert!(!is_logged_out("ann", Some("s"), before).await);
        let by_sid = logout("corp", Some("s"), Some("ann"));
        store.mark_logout(&by_sid).await.unwrap();
        let after = store.latest_logout().await.unwrap();
        assert!(is_logged_out("ann", Some("s"), before).await);
        assert!(is_logged_out("ann", None, before).await);
        assert!(!is_logged_out("ann", Some("t"), before).await);
        assert!(!is_logged_out("bob", None, before).await);
        // A sign-in that began afterwards is another one.
        assert!(!is_logged_out("ann", Some("s"), after).await);
        let by_subject = logout("corp", None, Some("ann"));
        store.mark_logout(&by_subject).await.unwrap();
        assert!(is_logged_out("ann", Some("t"), after).await);
        assert!(!is_logged_out("bob", Some("t"), after).await);
    }
}

#[tokio::test]
async fn logout_token_is_used_once() {
    let (_server, stores) = engines().await;
    for store in stores {
        let long = Duration::from_secs(60);
        let first = LogoutTokenUse::new("corp", "jti-1");
        let second = LogoutTokenUse::new("corp", "jti-1");
        assert!(!store.is_logout_token_used(first).await.unwrap());
        assert!(store.use_logout_token(first, long).await.unwrap());
        assert!(store.is_logout_token_used(second).await.unwrap());
        assert!(!store.use_logout_token(second, long).await.unwrap());
        // Again, because the first reply was lost.
        assert!(store.use_logout_token(first, long).await.unwrap());
        store.release_logout_token(second).await.unwrap();
        assert!(store.is_logout_token_used(second).await.unwrap());
        store.release_logout_token(first).await.unwrap();
        assert!(store.use_logout_token(second, long).await.unwrap());
        for other in [
            LogoutTokenUse::new("corp", "jti-2"),
            LogoutTokenUse::new("other", "jti-1"),
        ] {
            assert!(!store.is_logout_token_used(other).await.unwrap());
        }
    }
}

#[tokio::test]
async fn code_is_redeemed_once() {
    let (_server, stores) = engines().await;
    for store in stores {
        assert!(store.redeem_code("corp", "one").await.unwrap());
        assert!(!store.redeem_code("corp", "one").await.unwrap());
        assert!(store.redeem_code("other", "one").await.unwrap());
        assert!(store.redeem_code("corp", "two").await.unwrap());
        // A logout token with this name is another thing.
        let token = LogoutTokenUse::new("corp", "one");
        assert!(!store.is_logout_token_used(token).await.unwrap());
    }
}
