//! The database: the same promises from both engines.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]
#![expect(unreachable_pub, reason = "the harness is a module of this one binary")]

#[path = "database/acme.rs"]
mod acme;
#[path = "database/api_keys.rs"]
mod api_keys;
#[path = "database/identities.rs"]
mod identities;
#[path = "database/opening.rs"]
mod opening;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "database/profile.rs"]
mod profile;
#[path = "database/revocations.rs"]
mod revocations;
#[path = "database/sessions.rs"]
mod sessions;
#[path = "database/support.rs"]
mod support;
#[path = "database/users.rs"]
mod users;
