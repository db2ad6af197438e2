//! Responses to challenges of certificate authorities.

use portcullis::store::AcmeChallenge;

use crate::support::engines;

#[tokio::test]
async fn response_is_found_by_its_challenge_until_it_is_removed() {
    let (_server, stores) = engines().await;
    for store in stores {
        let http = AcmeChallenge::Http("token".to_owned());
        let tls = AcmeChallenge::Tls("token".to_owned());
        assert_eq!(store.acme_response(&http).await.unwrap(), None);
        store.put_acme_response(&http, Some("one")).await.unwrap();
        store.put_acme_response(&tls, Some("two")).await.unwrap();
        let found = store.acme_response(&http).await.unwrap();
        assert_eq!(found.as_deref(), Some("one"));
        store.put_acme_response(&http, Some("new")).await.unwrap();
        let found = store.acme_response(&http).await.unwrap();
        assert_eq!(found.as_deref(), Some("new"));
        store.put_acme_response(&http, None).await.unwrap();
        assert_eq!(store.acme_response(&http).await.unwrap(), None);
        let found = store.acme_response(&tls).await.unwrap();
        assert_eq!(found.as_deref(), Some("two"));
    }
}
