//! Verification of tokens, and whole decisions.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;

use crate::parts::{Fixture, now, request_headers};

/// A day and more: what a token may be too old by.
const LONG_AGO: u64 = 2 * 86_400_000;

pub(crate) fn token(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token");
    for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
        let parts = Fixture::new(&signing(algorithm));
        let verify = |token: String, good: bool| {
            let parts = &parts;
            move |bench: &mut criterion::Bencher<'_>| {
                bench.iter_custom(|times| {
                    parts.runtime.block_on(async {
                        let (started, now) = (Instant::now(), now());
                        for _ in 0..times {
                            let verified =
                                parts.snapshot.verifier.verify(black_box(&token), now).await;
                            assert_eq!(verified.is_ok(), good);
                        }
                        started.elapsed()
                    })
                });
            }
        };
        // A hash that is too old is verified completely each time: only valid ones are cached.
        let old = parts.token("ann", now() - LONG_AGO);
        group.bench_function(format!("{algorithm}, not cached"), verify(old, false));
        if algorithm == "HS256" {
            let good = parts.token("ann", now());
            group.bench_function("cached", verify(good, true));
        }
    }
    group.finish();
}

fn signing(algorithm: &str) -> String {
    let file = match algorithm {
        "RS256" => "rsa",
        "ES256" => "ec",
        "EdDSA" => "ed",
        _ => return "{algorithm: HS256, secret: '0123456789abcdef0123456789abcdef'}".to_owned(),
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/auth/token/testdata");
    format!("{{algorithm: {algorithm}, key_file: '{folder}/{file}.pem'}}")
}

pub(crate) fn admission(criterion: &mut Criterion) {
    let parts = Fixture::new(&signing("HS256"));
    let cached = parts.sign_in();
    let missing = request_headers();
    let mut group = criterion.benchmark_group("admission");
    for (name, route, headers, passes) in [
        ("no auth", "open", &missing, true),
        ("known session", "known", &cached, true),
        (
            "known session, one limit in memory",
            "limited",
            &cached,
            true,
        ),
        ("no credential", "known", &missing, false),
    ] {
        group.bench_function(name, |bench| {
            bench.iter_custom(|times| {
                parts.runtime.block_on(async {
                    let started = Instant::now();
                    for _ in 0..times {
                        let admitted = parts.admit(route, black_box(headers)).await;
                        assert_eq!(admitted.is_ok(), passes);
                    }
                    started.elapsed()
                })
            });
        });
    }
    group.finish();
}
