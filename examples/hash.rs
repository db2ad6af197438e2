//! Cost of one password comparison on this machine, which `bench/endpoints` subtracts from that of
//! a sign-in. For each line on standard input it verifies a password as the gateway does, and
//! prints the time in microseconds.

#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::io::{BufRead, Write};
use std::time::Instant;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

/// The gateway's allocator: a hash fills 19 MiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PASSWORD: &[u8] = b"a password for the bench only";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(PASSWORD)
        .map_err(|error| error.to_string())?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        let started = Instant::now();
        Argon2::default()
            .verify_password(PASSWORD, &hash)
            .map_err(|error| error.to_string())?;
        writeln!(out, "{}", started.elapsed().as_micros())?;
        out.flush()?;
    }
    Ok(())
}
