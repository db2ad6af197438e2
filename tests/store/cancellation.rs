//! Callers that give up: the connection is shared, and nobody may get another's answer.

use std::sync::Arc;
use std::time::Duration;

use portcullis::routing::Require;
use portcullis::session::OnLimit;
use portcullis::store::{Found, Inquiry};

use crate::server::Server;
use crate::support::{IDLE, inquiry, redis, session};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_belongs_to_its_question_whoever_gives_up() {
    let server = Server::start();
    let store = redis(&server, Duration::from_secs(10)).await;
    let now = store.now().await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..40 {
        let one = session(&format!("user-{n}"), now);
        store
            .create_session(&one, None, 5, OnLimit::Reject, IDLE)
            .await
            .unwrap();
        sessions.push(one);
    }
    let sessions = Arc::new(sessions);
    let tasks: Vec<_> = (0..40)
        .map(|n: usize| {
            let (store, sessions) = (store.clone(), Arc::clone(&sessions));
            tokio::spawn(async move {
                let mut answered = 0;
                for round in 0..500 {
                    let one = &sessions[(n + round) % sessions.len()];
                    let require = Require::default();
                    let asked = Inquiry {
                        session: Some(one.id),
                        ..inquiry(&[], &require, &[])
                    };
                    let patience = Duration::from_micros(rand::random_range(0..4000));
                    let Ok(found) =
                        tokio::time::timeout(patience, store.decide(&asked, IDLE)).await
                    else {
                        continue;
                    };
                    assert_eq!(
                        found.unwrap().session,
                        Found::Active(Arc::new(one.clone()), one.created_at)
                    );
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    assert!(
        answered > 100 && answered < 20_000,
        "{answered} of 20000 were answered"
    );
}
