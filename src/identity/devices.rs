//! Detection of sign-ins from new devices.

use sha2::{Digest, Sha256};

use super::{Accounts, ClientInfo};
use crate::auth::session::Millis;
use crate::database::{DeviceSighting, User};
use crate::events::{Event, EventKind};

/// Bytes of a device fingerprint.
const FINGERPRINT_BYTES: usize = 16;

impl Accounts {
    /// Records the device and reports a new one. Failures do not affect the sign-in.
    pub(super) async fn record_device(&self, user: &User, client_info: &ClientInfo, now: Millis) {
        let device = device_fingerprint(client_info);
        match self.database.record_device(&user.id, &device, now).await {
            Ok(DeviceSighting::New) => {
                let event = Event::new(EventKind::NewDevice)
                    .user(&user.id)
                    .ip(client_info.ip);
                self.events.record(event);
            }
            Ok(DeviceSighting::First | DeviceSighting::Known) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a device could not be recorded"
            ),
        }
    }
}

/// Fingerprint of a device by its headers. Digits are ignored, so that a browser update does not
/// make a new device.
fn device_fingerprint(client_info: &ClientInfo) -> String {
    let mut hash = Sha256::new();
    let agent = client_info
        .user_agent
        .replace(|c: char| c.is_ascii_digit(), "");
    let device = &client_info.device;
    for part in [
        Some(&*agent),
        device.kind.as_deref(),
        device.name.as_deref(),
    ] {
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize().get(..FINGERPRINT_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::session::Device;

    fn client_info(agent: &str, kind: Option<&str>, device: Option<&str>) -> ClientInfo {
        ClientInfo {
            ip: "192.0.2.1".parse().unwrap(),
            user_agent: agent.to_owned(),
            device: Device {
                kind: kind.map(Into::into),
                name: device.map(Into::into),
            },
        }
    }

    #[test]
    fn browser_version_does_not_change_the_fingerprint() {
        let one = device_fingerprint(&client_info("Browser/12.3 (X11)", None, Some("laptop")));
        assert_eq!(
            one,
            device_fingerprint(&client_info("Browser/13.0 (X11)", None, Some("laptop")))
        );
        for other in [
            client_info("Browser/12.3 (Mac)", None, Some("laptop")),
            client_info("Browser/12.3 (X11)", None, Some("phone")),
            client_info("Browser/12.3 (X11)", Some("laptop"), None),
        ] {
            assert_ne!(one, device_fingerprint(&other));
        }
    }
}
