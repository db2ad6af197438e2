//! Durable sessions, as rows.
#![expect(clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use portcullis::auth::provider_logout::ProviderLogout;
use portcullis::auth::provider_sign_in::ProviderSignIn;
use portcullis::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use portcullis::auth::session::{
    Device, EndReason, Millis, OnSessionLimit, Session, SessionId, SessionToken, no_data,
};
use portcullis::database::{Database, DurableRefreshTokens, SessionQuota};

use crate::support::databases;

const DAY: Millis = 86_400_000;

fn session(user: &str, now: Millis) -> Session {
    Session {
        id: SessionToken::random().id(),
        user: user.to_owned(),
        email: format!("{user}@example.com"),
        // It is read from the user's row, and there is none.
        username: None,
        name: Some("Ann \"the\" O'Neill".to_owned()),
        roles: ["admin".to_owned()].into(),
        scopes: [].into(),
        created_at: now,
        expires_at: now + DAY,
        ip: [192, 0, 2, 1].into(),
        user_agent: "curl/8".into(),
        device: Device {
            kind: None,
            name: Some("phone".into()),
        },
        ended: None,
        data: no_data(),
        revision: 0,
        provider: None,
        api_key: None,
    }
}

fn refresh_tokens(current: u8) -> DurableRefreshTokens {
    DurableRefreshTokens {
        current: [current; 32],
        until: DAY,
        rotated: Vec::new(),
        reused: false,
    }
}

fn quota(max: u32, used_since: Millis) -> SessionQuota {
    SessionQuota {
        max,
        on_limit: OnSessionLimit::EvictOldest,
        used_since,
    }
}

async fn store_session(database: &Database, session: &Session, max: u32) -> Vec<SessionId> {
    let now = session.created_at;
    let evicted = database
        .insert_session(session, &refresh_tokens(1), quota(max, 0), now)
        .await;
    evicted.unwrap().unwrap()
}

#[tokio::test]
async fn session_reads_back_as_written() {
    for fixture in databases() {
        let database = fixture.open().await;
        let written = session("ann", 1_000);
        assert_eq!(store_session(&database, &written, 5).await, []);
        let row = database.session(written.id).await.unwrap().unwrap();
        assert_eq!((row.session, row.last_activity), (written, 1_000));
        assert_eq!(row.refresh, refresh_tokens(1));
        assert_eq!(database.session(SessionId([7; 32])).await.unwrap(), None);
    }
}

#[tokio::test]
async fn sign_in_at_a_provider_reads_back_as_written() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut sign_in = ProviderSignIn {
            provider: "corp".into(),
            subject: "1".to_owned(),
            sid: Some("s \"1".to_owned()),
            authenticated_at: 900,
            acr: Some("mfa".into()),
            amr: ["pwd".to_owned(), "otp".to_owned()].into(),
        };
        for _ in 0..2 {
            let mut written = session("corp:1", 1_000);
            written.provider = Some(Arc::new(sign_in.clone()));
            store_session(&database, &written, 5).await;
            let row = database.session(written.id).await.unwrap().unwrap();
            assert_eq!(row.session, written);
            (sign_in.sid, sign_in.acr, sign_in.amr) = (None, None, [].into());
        }
    }
}

#[tokio::test]
async fn logout_at_a_provider_finds_its_sessions() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut written = Vec::new();
        for (subject, sid) in [("1", Some("s")), ("1", Some("t")), ("1", None), ("2", None)] {
            let mut one = session("corp:1", 1_000);
            one.provider = Some(Arc::new(ProviderSignIn {
                provider: "corp".into(),
                subject: subject.to_owned(),
                sid: sid.map(str::to_owned),
                authenticated_at: 900,
                acr: None,
                amr: [].into(),
            }));
            store_session(&database, &one, 50).await;
            written.push(one.id);
        }
        for (sid, subject, expected) in [
            (Some("s"), Some("1"), vec![0, 2]),
            (Some("s"), None, vec![0]),
            (None, Some("1"), vec![0, 1, 2]),
        ] {
            let logout = ProviderLogout {
                provider: "corp".into(),
                sid: sid.map(str::to_owned),
                subject: subject.map(str::to_owned),
            };
            let found = database.provider_sessions(&logout).await.unwrap();
            let found: Vec<SessionId> = found.iter().map(|session| session.id).collect();
            let mut expected: Vec<SessionId> = expected.iter().map(|n| written[*n]).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{sid:?} {subject:?}");
        }
    }
}

#[tokio::test]
async fn provider_tokens_are_replaced_once_and_end_with_the_row() {
    for fixture in databases() {
        let database = fixture.open().await;
        let one = session("corp:1", 1_000);
        let tokens = |version| SealedTokens {
            version,
            sealed: [0xff, 0, 1].into(),
        };
        let put = async |version| {
            let tokens = tokens(version);
            let put = database.put_provider_tokens(one.id, &tokens, 1_000);
            put.await.unwrap()
        };
        assert_eq!(put(1).await, None);
        assert_eq!(database.provider_tokens(one.id).await.unwrap(), None);
        store_session(&database, &one, 5).await;
        assert_eq!(database.provider_tokens(one.id).await.unwrap(), Some(None));
        assert_eq!(put(1).await, Some(PutTokensOutcome::Written));
        assert_eq!(put(1).await, Some(PutTokensOutcome::Changed));
        let read = database.provider_tokens(one.id).await.unwrap();
        assert_eq!(read, Some(Some(tokens(1))));
        database
            .set_session_identity(one.id, "new@example.com", None, &[], &["a".to_owned()])
            .await
            .unwrap();
        let row = database.session(one.id).await.unwrap().unwrap().session;
        assert_eq!(
            (&*row.email, row.name, row.revision),
            ("new@example.com", None, 1)
        );
        assert_eq!((row.roles.len(), &*row.scopes[0]), (0, "a"));
        let end = database.end_session(one.id, EndReason::Admin, 0, 2_000);
        assert!(end.await.unwrap());
        assert_eq!(database.provider_tokens(one.id).await.unwrap(), Some(None));
        assert_eq!(put(2).await, Some(PutTokensOutcome::Gone));
    }
}

#[tokio::test]
async fn ended_session_stays_ended() {
    for fixture in databases() {
        let database = fixture.open().await;
        let one = session("ann", 1_000);
        store_session(&database, &one, 5).await;
        let end = |reason, since| database.end_session(one.id, reason, since, 2_000);
        // Idle for too long: it stays expired.
        assert!(!end(EndReason::Admin, 1_500).await.unwrap());
        assert!(end(EndReason::SignOut, 0).await.unwrap());
        assert!(!end(EndReason::Admin, 0).await.unwrap());
        let ended = database
            .session(one.id)
            .await
            .unwrap()
            .unwrap()
            .session
            .ended;
        let ended = ended.unwrap();
        assert_eq!((ended.at, ended.reason), (2_000, EndReason::SignOut));
        let pending = database.pending_ends().await.unwrap();
        assert_eq!(pending, [(one.id, EndReason::SignOut)]);
        database.mark_ends_replayed(&[one.id]).await.unwrap();
        assert_eq!(database.pending_ends().await.unwrap(), []);
        let since = |since| database.ends_since(since, None, 3_000);
        assert_eq!(since(2_000).await.unwrap(), [(one.id, EndReason::SignOut)]);
        assert_eq!(since(2_001).await.unwrap(), []);
    }
}

#[tokio::test]
async fn concurrent_sign_ins_respect_the_row_limit() {
    for fixture in databases() {
        let database = fixture.open().await;
        let racing = (0..20).map(|n| {
            let database = database.clone();
            async move { store_session(&database, &session("ann", 1_000 + n), 3).await }
        });
        let evicted = futures_util::future::join_all(racing).await;
        assert_eq!(evicted.into_iter().flatten().count(), 17);
        let rows = database.user_sessions("ann").await.unwrap();
        let alive = rows.iter().filter(|row| row.session.ended.is_none());
        assert_eq!((rows.len(), alive.count()), (20, 3));
        let rejecting = SessionQuota {
            on_limit: OnSessionLimit::Reject,
            ..quota(3, 0)
        };
        let (one_more, first) = (session("ann", 5_000), refresh_tokens(1));
        let evicted = database.insert_session(&one_more, &first, rejecting, 5_000);
        assert_eq!(evicted.await.unwrap(), None);
        // Those that were idle for too long take no room.
        let evicted = database.insert_session(&one_more, &first, quota(3, 4_000), 5_000);
        assert_eq!(evicted.await.unwrap(), Some(Vec::new()));
    }
}

#[tokio::test]
async fn ending_others_keeps_one_and_fifty_ended() {
    for fixture in databases() {
        let database = fixture.open().await;
        let sessions: Vec<Session> = (0..60).map(|n| session("ann", 1_000 + n)).collect();
        for one in &sessions {
            store_session(&database, one, 100).await;
        }
        let other = session("bob", 1_000);
        store_session(&database, &other, 5).await;
        let (current, reason) = (sessions[9].id, EndReason::Terminated);
        let ended = database.end_user_sessions("ann", Some(current), reason, 0, 2_000);
        assert_eq!(ended.await.unwrap().len(), 59);
        let pending = database.pending_ends().await.unwrap();
        let pending: Vec<SessionId> = pending.into_iter().map(|(id, _)| id).collect();
        database.mark_ends_replayed(&pending).await.unwrap();
        let again = database.end_user_sessions("ann", Some(current), reason, 0, 2_000);
        assert_eq!(again.await.unwrap(), []);
        assert_eq!(database.user_sessions("ann").await.unwrap().len(), 51);
        let bob = database.session(other.id).await.unwrap().unwrap();
        assert_eq!(bob.session.ended, None);
    }
}

#[tokio::test]
async fn concurrent_refresh_rotations_have_one_winner() {
    for fixture in databases() {
        let database = fixture.open().await;
        let one = session("ann", 1_000);
        store_session(&database, &one, 5).await;
        let after = DurableRefreshTokens {
            rotated: vec![([1; 32], 2_000), ([9; 32], 2_001)],
            ..refresh_tokens(2)
        };
        let before = refresh_tokens(1);
        let turning = (0..8).map(|_| database.rotate_refresh(one.id, &before, &after));
        let turned = futures_util::future::join_all(turning).await;
        assert_eq!(
            turned.into_iter().filter(|t| *t.as_ref().unwrap()).count(),
            1
        );
        let row = database.session(one.id).await.unwrap().unwrap();
        assert_eq!(row.refresh, after);
    }
}

#[tokio::test]
async fn batched_uses_report_ended_sessions() {
    for fixture in databases() {
        let database = fixture.open().await;
        let sessions: Vec<Session> = (0..600).map(|n| session("ann", 1_000 + n)).collect();
        let some: Vec<&Session> = sessions.iter().step_by(100).collect();
        for one in &some {
            store_session(&database, one, 100).await;
        }
        let over = some[2].id;
        database
            .end_session(over, EndReason::Admin, 0, 2_000)
            .await
            .unwrap();
        let uses: Vec<(SessionId, Millis)> = sessions.iter().map(|one| (one.id, 9_000)).collect();
        assert_eq!(database.update_last_activity(&uses).await.unwrap(), [over]);
        assert_eq!(
            database
                .update_last_activity(&[(some[0].id, 8_000)])
                .await
                .unwrap(),
            []
        );
        let row = database.session(some[0].id).await.unwrap().unwrap();
        assert_eq!(row.last_activity, 9_000);
        let ids = [some[0].id, over, SessionId([7; 32])];
        let mut liveness = database.look_up_liveness(&ids, 8_999, 9_001).await.unwrap();
        liveness.sort_by_key(|(_, alive)| *alive);
        assert_eq!(liveness, [(over, false), (some[0].id, true)]);
        let liveness = database.look_up_liveness(&ids[..1], 9_000, 9_001).await;
        assert_eq!(liveness.unwrap(), [(some[0].id, false)]);
    }
}

#[tokio::test]
async fn rows_ended_for_an_hour_are_trimmed() {
    for fixture in databases() {
        let database = fixture.open().await;
        let (old, ended, new) = (session("a", 1_000), session("b", 1_000), session("c", DAY));
        for one in [&old, &ended, &new] {
            store_session(&database, one, 5).await;
        }
        let hour = DAY / 24;
        let end = database.end_session(ended.id, EndReason::Admin, 0, DAY);
        assert!(end.await.unwrap());
        assert_eq!(
            database.delete_expired_sessions(DAY + 1_000).await.unwrap(),
            0
        );
        assert_eq!(
            database
                .delete_expired_sessions(DAY + hour + 2_000)
                .await
                .unwrap(),
            2
        );
        assert!(database.session(new.id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn session_row_is_deleted_with_its_user() {
    for fixture in databases() {
        let database = fixture.open().await;
        let new = portcullis::database::NewUser {
            email: "ann@example.com".to_owned(),
            username: None,
            name: None,
            password_hash: Some("$x".to_owned()),
            roles: vec!["editor".to_owned()],
            scopes: vec!["read".to_owned()],
            disabled: false,
        };
        let user = database.create_user(new, 1).await.unwrap().unwrap();
        let mut one = session(&user.id, 1_000);
        store_session(&database, &one, 5).await;
        database.update_session_identity(&user.id).await.unwrap();
        one.device.name = Some("tablet".into());
        one.data = r#"{"a":1}"#.into();
        database.update_session(&one).await.unwrap();
        let row = database.session(one.id).await.unwrap().unwrap().session;
        let expected = Session {
            email: user.email,
            name: None,
            roles: user.roles.into(),
            scopes: user.scopes.into(),
            revision: 2,
            ..one
        };
        assert_eq!(row, expected);
    }
}
