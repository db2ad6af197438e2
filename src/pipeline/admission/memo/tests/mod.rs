//! With and without the memo, every request is decided alike, whatever has changed before.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod fixture;

use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::{Fixture, ROUTE_COUNT};
use proptest::prelude::*;

use super::*;
use crate::limits::Decision;
use crate::pipeline::admission::Permit;
use crate::rejection::{Reason, Refusal, Rejection};

/// Requests that the memo has decided, in all cases.
static RECALLED: AtomicUsize = AtomicUsize::new(0);

/// What may happen between two requests.
#[derive(Debug, Clone)]
enum Change {
    /// The session ends.
    End(ChangeOrigin),
    /// The user gains or loses the role `staff`.
    Roles(ChangeOrigin, bool),
    /// The token with this key is revoked.
    Blacklist(ChangeOrigin, &'static str),
    /// All tokens of the foreign user are revoked.
    CutOff(ChangeOrigin),
    GlobalCutOff,
    /// An invalidation arrives.
    Invalidate(usize),
    Flush,
    /// The connection for invalidations is lost, or confirmed.
    Lose,
    Confirm,
    /// The gateway's clock moves, in seconds.
    Clock(u64),
    Reload(Configuration),
}

/// Where a change is made.
#[derive(Debug, Clone, Copy)]
enum ChangeOrigin {
    Here,
    /// On another gateway: its invalidation has not arrived yet.
    Elsewhere,
}

#[derive(Debug, Clone, Copy)]
struct Configuration {
    is_idle_at_once: bool,
    has_other_keys: bool,
    binds_address: bool,
}

fn change() -> impl Strategy<Value = Change> {
    let configuration = (any::<bool>(), any::<bool>(), any::<bool>());
    let configuration = configuration.prop_map(|(idle, keys, binds)| Configuration {
        is_idle_at_once: idle,
        has_other_keys: keys,
        binds_address: binds,
    });
    let place = || prop_oneof![Just(ChangeOrigin::Here), Just(ChangeOrigin::Elsewhere)];
    let key = prop_oneof![Just("t1"), Just("foreign")];
    prop_oneof![
        1 => place().prop_map(Change::End),
        3 => (place(), any::<bool>()).prop_map(|(place, staff)| Change::Roles(place, staff)),
        1 => (place(), key).prop_map(|(place, key)| Change::Blacklist(place, key)),
        1 => place().prop_map(Change::CutOff),
        1 => Just(Change::GlobalCutOff),
        3 => (0..4_usize).prop_map(Change::Invalidate),
        2 => Just(Change::Flush),
        1 => Just(Change::Lose),
        3 => Just(Change::Confirm),
        1 => (0..70_u64).prop_map(Change::Clock),
        1 => configuration.prop_map(Change::Reload),
    ]
}

/// How the user of the session signed in.
#[derive(Debug, Clone, Copy)]
enum SignIn {
    Password,
    /// At a provider, this many seconds before the session was opened.
    Provider {
        is_strong: bool,
        before: u64,
    },
}

fn sign_in() -> impl Strategy<Value = SignIn> {
    let provider = (any::<bool>(), prop_oneof![Just(0_u64), Just(7200)]);
    prop_oneof![
        Just(SignIn::Password),
        provider.prop_map(|(is_strong, before)| SignIn::Provider { is_strong, before }),
    ]
}

/// The parts of a decision that have to agree.
struct Outcome {
    verdict: Result<(String, Vec<String>, Option<SessionId>, CredentialKind), Refused>,
    limits: Vec<(Arc<str>, u64)>,
}

/// The refusal, its reason, whether the cookie is cleared, and the user.
type Refused = (Refusal, Option<Reason>, bool, Option<String>);

impl Outcome {
    fn of(decided: Result<Permit, Rejection>) -> Outcome {
        let (verdict, decisions) = match decided {
            Ok(permit) => {
                let identity = permit.identity.unwrap();
                let session = identity.session().map(|session| session.id);
                let verdict = (
                    identity.user().to_owned(),
                    identity.roles().to_vec(),
                    session,
                    identity.credential_kind,
                );
                (Ok(verdict), permit.decisions)
            }
            Err(refused) => {
                // As the log line names it.
                let user = refused.details.and_then(|details| details.user);
                let user = user.or_else(|| refused.caller.map(|it| it.user().to_owned()));
                let why = (refused.refusal, refused.reason, refused.clear_cookie, user);
                (Err(why), refused.decisions)
            }
        };
        let left = |it: &Decision| (Arc::clone(&it.limit.name), it.remaining);
        let limits = decisions.iter().map(left).collect();
        Outcome { verdict, limits }
    }
}

#[test]
fn memo_and_caches_decide_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let request = (0..3_usize, 0..ROUTE_COUNT, 1..3_u8);
    let step = (prop::option::weighted(0.5, change()), request);
    let steps = prop::collection::vec(step, 1..25);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(192)
    });
    let outcome = runner.run(&(sign_in(), steps), |(sign_in, steps)| {
        runtime.block_on(async {
            let mut fixture = Fixture::new(sign_in).await;
            fixture.confirm();
            for (change, (credential, route, address)) in steps {
                // One request that is looked up, one that is added, one that is recalled.
                for _ in 0..3 {
                    fixture.check(credential, route, address).await;
                }
                if let Some(change) = &change {
                    fixture.apply(change).await;
                }
                for credential in 0..3 {
                    for route in 0..ROUTE_COUNT {
                        fixture.check(credential, route, address).await;
                    }
                }
            }
        });
        Ok(())
    });
    outcome.unwrap();
    assert!(RECALLED.load(Ordering::Relaxed) > 1_000);
}

#[tokio::test]
async fn callers_of_a_route_with_an_age_are_not_recalled() {
    let recent = ROUTE_COUNT - 1;
    let fixture = Fixture::new(SignIn::Password).await;
    fixture.confirm();
    let recalled = async |route| {
        for _ in 0..4 {
            fixture.admit(&fixture.memo, 2, route, 1).await.unwrap();
        }
        !fixture.memo.table.lock().entries.is_empty()
    };
    assert!(!recalled(recent).await);
    assert!(recalled(0).await);
}
