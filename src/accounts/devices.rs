//! Telling when somebody signs in with something that they never used before.

use sha2::{Digest, Sha256};

use super::{Accounts, Visitor};
use crate::auth::session::Millis;
use crate::directory::{Acquaintance, User};
use crate::events::{Event, Kind};

/// Bytes of the hash that names a device.
const NAME: usize = 16;

impl Accounts {
    /// Remembers the device, and reports one that is new. The sign-in goes on whatever happens here.
    pub(super) async fn notice_device(&self, user: &User, visitor: &Visitor, now: Millis) {
        let device = name(visitor);
        match self.directory.remember_device(&user.id, &device, now).await {
            Ok(Acquaintance::New) => {
                let event = Event::new(Kind::NewDevice).user(&user.id).ip(visitor.ip);
                self.events.record(event);
            }
            Ok(Acquaintance::First | Acquaintance::Known) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a device is not remembered"
            ),
        }
    }
}

/// One name for each device, as far as it can be told by what it says. A newer version of the same
/// browser is no other device: digits do not count.
fn name(visitor: &Visitor) -> String {
    let mut hash = Sha256::new();
    let agent = visitor.user_agent.replace(|c: char| c.is_ascii_digit(), "");
    let device = &visitor.device;
    for part in [
        Some(&*agent),
        device.kind.as_deref(),
        device.name.as_deref(),
    ] {
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize().get(..NAME).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::session::Device;

    fn visitor(agent: &str, kind: Option<&str>, device: Option<&str>) -> Visitor {
        Visitor {
            ip: "192.0.2.1".parse().unwrap(),
            user_agent: agent.to_owned(),
            device: Device {
                kind: kind.map(Into::into),
                name: device.map(Into::into),
            },
        }
    }

    #[test]
    fn a_newer_version_is_the_same_device_and_another_name_is_not() {
        let one = name(&visitor("Browser/12.3 (X11)", None, Some("laptop")));
        assert_eq!(
            one,
            name(&visitor("Browser/13.0 (X11)", None, Some("laptop")))
        );
        for other in [
            visitor("Browser/12.3 (Mac)", None, Some("laptop")),
            visitor("Browser/12.3 (X11)", None, Some("phone")),
            visitor("Browser/12.3 (X11)", Some("laptop"), None),
        ] {
            assert_ne!(one, name(&other));
        }
    }
}
