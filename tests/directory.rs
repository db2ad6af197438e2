//! The directory: the same promises from both engines.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![expect(unreachable_pub, reason = "the harness is a module of this one binary")]

#[path = "directory/opening.rs"]
mod opening;
#[path = "directory/pictures.rs"]
mod pictures;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "directory/revocations.rs"]
mod revocations;
#[path = "directory/sessions.rs"]
mod sessions;
#[path = "directory/support.rs"]
mod support;
#[path = "directory/users.rs"]
mod users;
