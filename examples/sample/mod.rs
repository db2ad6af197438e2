//! The session of the benches: a real user agent, an address, a device, an e-mail address of 25
//! characters. Sessions are numbered, so that none has to be stored to be named again.

use portcullis::auth::session::{Device, Millis, Session, SessionId, no_data};
use sha2::{Digest, Sha256};

/// A real one of 110 characters.
const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like \
     Gecko) Chrome/99.0.0.0 Safari/537.36";

/// Session number `n`, of a user that has no other, made `now` for 30 days.
pub(crate) fn session(n: u64, now: Millis) -> Session {
    let [_, _, _, _, _, _, a, b] = n.to_be_bytes();
    Session {
        id: id(n),
        user: user(n),
        email: format!("user-{:08}@example.org", n % 100_000_000),
        username: None,
        name: Some("Ann Example".to_owned()),
        roles: ["user".to_owned()].into(),
        scopes: [].into(),
        created_at: now,
        expires_at: now + 30 * 86_400_000,
        ip: [198, 51, a, b].into(),
        user_agent: USER_AGENT.into(),
        device: Device {
            kind: Some("desktop".into()),
            name: Some("Ann's computer".into()),
        },
        ended: None,
        data: no_data(),
        revision: 0,
        provider: None,
        api_key: None,
    }
}

/// As long as a UUID.
fn user(n: u64) -> String {
    format!("00000000-0000-4000-8000-{:012x}", n & 0xffff_ffff_ffff)
}

pub(crate) fn id(n: u64) -> SessionId {
    SessionId(Sha256::digest(n.to_be_bytes()).into())
}
