//! Accounts and certificates by ACME.

use portcullis::database::{AcmeAccountKey, AcmeCertificate};

use crate::support::databases;

const DIRECTORY: &str = "https://ca.example/directory";

fn account(email: &str) -> AcmeAccountKey {
    AcmeAccountKey {
        directory: DIRECTORY.to_owned(),
        email: email.to_owned(),
        external_id: String::new(),
    }
}

fn certificate(chain: &str, renew_at: u64) -> AcmeCertificate {
    AcmeCertificate {
        chain: chain.to_owned(),
        sealed_key: vec![0, 255, 7],
        renew_at,
    }
}

#[tokio::test]
async fn one_gateway_at_a_time_orders_with_an_account() {
    for fixture in databases() {
        let database = fixture.open().await;
        let begin = |email: &str, now, until| {
            let account = account(email);
            let database = database.clone();
            async move {
                let lease = database.begin_acme_orders(&account, now, until, now + 120);
                lease.await.unwrap()
            }
        };
        let first = begin("a", 1_000, 1_060).await.unwrap();
        assert_eq!(begin("a", 1_059, 1_119).await, None);
        assert!(begin("b", 1_000, 1_060).await.is_some(), "another account");
        assert!(database.extend_acme_orders(&first, 1_100).await.unwrap());
        assert_eq!(begin("a", 1_099, 1_159).await, None);
        let second = begin("a", 1_100, 1_160).await.unwrap();
        assert!(!database.extend_acme_orders(&first, 1_200).await.unwrap());
        assert!(database.extend_acme_orders(&second, 0).await.unwrap());
        let third = begin("a", 1_101, 1_161).await.unwrap();
        // A clock that was a day ahead.
        assert!(database.extend_acme_orders(&third, 90_000).await.unwrap());
        assert!(begin("a", 1_102, 1_162).await.is_some());
    }
}

#[tokio::test]
async fn credentials_are_those_of_their_account() {
    for fixture in databases() {
        let database = fixture.open().await;
        let (one, other) = (account("a"), account("b"));
        for account in [&one, &other] {
            let lease = database.begin_acme_orders(account, 1, 2, 3).await.unwrap();
            assert!(lease.is_some());
            assert_eq!(database.acme_credentials(account).await.unwrap(), None);
        }
        let sealed = Some(&[1, 0, 255][..]);
        database.put_acme_credentials(&one, sealed).await.unwrap();
        let read = database.acme_credentials(&one).await.unwrap();
        assert_eq!(read.as_deref(), sealed);
        assert_eq!(database.acme_credentials(&other).await.unwrap(), None);
        database.put_acme_credentials(&one, None).await.unwrap();
        assert_eq!(database.acme_credentials(&one).await.unwrap(), None);
    }
}

#[tokio::test]
async fn certificate_is_kept_over_failures_until_the_next_one() {
    for fixture in databases() {
        let database = fixture.open().await;
        let state = || async {
            let mut states = database.acme_certificate_states().await.unwrap();
            assert!(states.len() <= 1);
            let state = states.pop()?;
            assert_eq!(
                (&*state.directory, &*state.domain),
                (DIRECTORY, "a.example")
            );
            Some((
                state.version,
                state.renew_at,
                state.failures,
                state.retry_at,
            ))
        };
        let read = || database.acme_certificate(DIRECTORY, "a.example");
        let fail = |retry_at| database.record_acme_failure(DIRECTORY, "a.example", retry_at);
        assert_eq!(state().await, None);
        fail(10).await.unwrap();
        fail(20).await.unwrap();
        assert_eq!(state().await, Some((0, 0, 2, 20)));
        assert_eq!(read().await.unwrap(), None, "there is none yet");

        let first = certificate("first", 100);
        let put = database.put_acme_certificate(DIRECTORY, "a.example", &first, 0);
        put.await.unwrap();
        assert_eq!(state().await, Some((1, 100, 0, 0)));
        fail(130).await.unwrap();
        assert_eq!(state().await, Some((1, 100, 1, 130)));
        assert_eq!(read().await.unwrap(), Some((1, first)));

        let second = certificate("second", 200);
        let put = database.put_acme_certificate(DIRECTORY, "a.example", &second, 150);
        put.await.unwrap();
        assert_eq!(state().await, Some((2, 200, 0, 150)));
        let reseal = |old: &'static [u8], new: &'static [u8]| {
            database.reseal_acme_key(DIRECTORY, "a.example", old, new)
        };
        reseal(&[9], &[8]).await.unwrap();
        assert_eq!(read().await.unwrap(), Some((2, second.clone())));
        reseal(&[0, 255, 7], &[8]).await.unwrap();
        let resealed = AcmeCertificate {
            sealed_key: vec![8],
            ..second
        };
        assert_eq!(read().await.unwrap(), Some((2, resealed)));
    }
}
