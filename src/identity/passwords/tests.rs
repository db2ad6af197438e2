#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const COST: HashCost = HashCost {
    memory: 19 << 10,
    iterations: 2,
    parallelism: 1,
};

#[tokio::test]
async fn password_is_verified_exactly_as_typed() {
    let passwords = Passwords::with_slots(1, 10).unwrap();
    let password = " pässword 🔑 ".repeat(30);
    let hash = passwords
        .hash(passwords.acquire_slot().await.unwrap(), &password, COST)
        .await
        .unwrap();
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
    let (mut slot, right) = passwords
        .verify(
            passwords.acquire_slot().await.unwrap(),
            &password,
            Some(&hash),
            COST,
        )
        .await
        .unwrap();
    assert!(right);
    for wrong in [
        password.trim(),
        &password.to_uppercase(),
        &password[..128],
        "",
    ] {
        let right;
        (slot, right) = passwords
            .verify(slot, wrong, Some(&hash), COST)
            .await
            .unwrap();
        assert!(!right, "{wrong}");
    }
}

#[tokio::test]
async fn unknown_user_never_matches() {
    let passwords = Passwords::with_slots(1, 10).unwrap();
    let (_, right) = passwords
        .verify(passwords.acquire_slot().await.unwrap(), "x", None, COST)
        .await
        .unwrap();
    assert!(!right);
}

/// CPU time of this thread.
fn time_on_cpu() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = statistics.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

fn time_of_mismatch(passwords: &Passwords, hash: Option<&str>, cost: HashCost) -> Duration {
    let hash = passwords.hash_or_dummy(hash, cost);
    let start = time_on_cpu();
    assert!(!verify_with_equal_work("x", &hash, cost).unwrap());
    time_on_cpu() - start
}

#[test]
fn mismatch_costs_the_configured_work() {
    let passwords = Passwords::with_slots(1, 10).unwrap();
    let old = hash_now("another", COST).unwrap();
    let risen = HashCost {
        memory: 64 << 10,
        iterations: 3,
        parallelism: 2,
    };
    // The minimum of several alternating rounds: other load only adds time, so the minimum
    // converges to the true cost.
    let mut least = [Duration::MAX; 3];
    let fits = |[unknown_user, old_hash, before]: [Duration; 3]| {
        // Without the equalizing work the ratio would be a fifth.
        let is_equal = old_hash > unknown_user.mul_f64(0.7) && old_hash < unknown_user.mul_f64(1.4);
        is_equal && unknown_user > before * 3
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
            *least = (*least).min(time_of_mismatch(&passwords, hash, cost));
        }
    }
    panic!("{least:?}");
}

#[tokio::test]
async fn full_queue_is_busy_and_slots_are_released() {
    let passwords = Passwords::with_slots(1, 1).unwrap();
    let slot = passwords.acquire_slot().await.unwrap();
    let mut second = Box::pin(passwords.acquire_slot());
    assert!(futures_util::poll!(&mut second).is_pending());
    assert_eq!(passwords.acquire_slot().await.err(), Some(HashError::Busy));
    drop(slot);
    drop(second.await.unwrap());
    passwords.acquire_slot().await.unwrap();
}

#[tokio::test]
async fn unknown_addresses_cannot_exhaust_the_reserve() {
    let passwords = Passwords::with_slots(1, 1).unwrap();
    let slot = passwords.acquire_sign_in_slot(true).await.unwrap();
    let mut stranger = Box::pin(passwords.acquire_slot());
    assert!(futures_util::poll!(&mut stranger).is_pending());
    assert_eq!(passwords.acquire_slot().await.err(), Some(HashError::Busy));
    let reserved = passwords.acquire_sign_in_slot(true).await.unwrap();
    let mut another = Box::pin(passwords.acquire_sign_in_slot(true));
    assert!(futures_util::poll!(&mut another).is_pending());
    assert_eq!(
        passwords.acquire_sign_in_slot(true).await.err(),
        Some(HashError::Busy)
    );
    drop(reserved);
    drop(another.await.unwrap());
    drop(slot);
    drop(stranger.await.unwrap());
}

#[test]
fn cheaper_hash_is_outdated() {
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
    // A hash that cannot be verified is not upgraded.
    assert!(!is_outdated("no hash", COST));
}

#[tokio::test]
async fn invalid_hash_is_an_error_not_a_mismatch() {
    let passwords = Passwords::with_slots(1, 1).unwrap();
    let slot = passwords.acquire_slot().await.unwrap();
    let outcome = passwords.verify(slot, "x", Some("no hash"), COST).await;
    assert_eq!(outcome.err(), Some(HashError::Failed));
}
