#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const COST: HashCost = HashCost {
    memory: 19 << 10,
    iterations: 2,
    parallelism: 1,
};

#[tokio::test]
async fn a_password_is_verified_exactly_as_typed() {
    let passwords = Passwords::with_turns(1, 10).unwrap();
    let typed = " pässword 🔑 ".repeat(30);
    let hash = passwords
        .hash(passwords.turn().await.unwrap(), &typed, COST)
        .await
        .unwrap();
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
    let (mut turn, right) = passwords
        .verify(passwords.turn().await.unwrap(), &typed, Some(&hash), COST)
        .await
        .unwrap();
    assert!(right);
    for wrong in [typed.trim(), &typed.to_uppercase(), &typed[..128], ""] {
        let right;
        (turn, right) = passwords
            .verify(turn, wrong, Some(&hash), COST)
            .await
            .unwrap();
        assert!(!right, "{wrong}");
    }
}

#[tokio::test]
async fn nobodys_password_takes_the_same_work_and_never_matches() {
    let passwords = Passwords::with_turns(1, 10).unwrap();
    let (_, right) = passwords
        .verify(passwords.turn().await.unwrap(), "x", None, COST)
        .await
        .unwrap();
    assert!(!right);
}

/// The time that this thread had a CPU for itself.
fn time_on_cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = told.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

fn time_of_a_no(passwords: &Passwords, hash: Option<&str>, cost: HashCost) -> Duration {
    let hash = passwords.to_compare(hash, cost);
    let start = time_on_cpu();
    assert!(!compare("x", &hash, cost).unwrap());
    time_on_cpu() - start
}

#[test]
fn a_no_takes_the_work_of_todays_cost_whatever_the_hash_cost() {
    let passwords = Passwords::with_turns(1, 10).unwrap();
    let old = hash_now("another", COST).unwrap();
    let risen = HashCost {
        memory: 64 << 10,
        iterations: 3,
        parallelism: 2,
    };
    // The fastest of some, in turns: what else runs makes each slower only, so that they come
    // closer and closer to what they are.
    let mut least = [Duration::MAX; 3];
    let fits = |[nobody, somebody, before]: [Duration; 3]| {
        // Without the further work it would be a fifth.
        let alike = somebody > nobody.mul_f64(0.7) && somebody < nobody.mul_f64(1.4);
        alike && nobody > before * 3
    };
    for round in 0..60 {
        if round >= 7 && fits(least) {
            return;
        }
        for (least, (hash, cost)) in
            least
                .iter_mut()
                .zip([(None, risen), (Some(&*old), risen), (Some(&*old), COST)])
        {
            *least = (*least).min(time_of_a_no(&passwords, hash, cost));
        }
    }
    panic!("{least:?}");
}

#[tokio::test]
async fn a_full_queue_is_told_and_places_are_given_back() {
    let passwords = Passwords::with_turns(1, 1).unwrap();
    let turn = passwords.turn().await.unwrap();
    let mut second = Box::pin(passwords.turn());
    assert!(futures_util::poll!(&mut second).is_pending());
    assert_eq!(passwords.turn().await.err(), Some(HashError::Busy));
    drop(turn);
    drop(second.await.unwrap());
    passwords.turn().await.unwrap();
}

#[tokio::test]
async fn strangers_do_not_use_up_the_reserve() {
    let passwords = Passwords::with_turns(1, 1).unwrap();
    let turn = passwords.turn_of(true).await.unwrap();
    let mut stranger = Box::pin(passwords.turn());
    assert!(futures_util::poll!(&mut stranger).is_pending());
    assert_eq!(passwords.turn().await.err(), Some(HashError::Busy));
    let known = passwords.turn_of(true).await.unwrap();
    let mut another = Box::pin(passwords.turn_of(true));
    assert!(futures_util::poll!(&mut another).is_pending());
    assert_eq!(passwords.turn_of(true).await.err(), Some(HashError::Busy));
    drop(known);
    drop(another.await.unwrap());
    drop(turn);
    drop(stranger.await.unwrap());
}

#[test]
fn a_hash_is_outdated_when_it_cost_less() {
    let hash = |start: &str| format!("{start}$c29tZXNhbHRzb21lc2FsdA$aGFzaGhhc2hoYXNoaGFzaA");
    for (start, outdated) in [
        ("$argon2id$v=19$m=19456,t=2,p=1", false),
        ("$argon2id$v=19$m=65536,t=3,p=4", false),
        ("$argon2id$v=19$m=8192,t=2,p=1", true),
        ("$argon2id$v=19$m=19456,t=1,p=1", true),
        ("$argon2id$v=19$m=47104,t=1,p=1", false),
        ("$argon2id$v=19$m=12288,t=3,p=1", true),
        ("$argon2i$v=19$m=19456,t=2,p=1", true),
    ] {
        assert_eq!(is_outdated(&hash(start), COST), outdated, "{start}");
    }
    // There is nothing to make better of what cannot be verified.
    assert!(!is_outdated("no hash", COST));
}

#[tokio::test]
async fn a_hash_that_is_none_is_an_error_and_not_a_wrong_password() {
    let passwords = Passwords::with_turns(1, 1).unwrap();
    let turn = passwords.turn().await.unwrap();
    let outcome = passwords.verify(turn, "x", Some("no hash"), COST).await;
    assert_eq!(outcome.err(), Some(HashError::Failed));
}
