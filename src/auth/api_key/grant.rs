//! What decides whether a presented key may pass, beside the roles and scopes that it gives.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::SecretHash;
use crate::auth::session::Millis;

/// Number of replaced secrets that are kept. Earlier ones are unknown.
const MAX_REPLACED: usize = 8;

/// A secret that a rotation has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedSecret {
    #[serde(with = "hash_text")]
    pub hash: SecretHash,
    /// Until when it is valid.
    pub until: Millis,
}

/// Whether a key's owner and the key itself permit its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeyState {
    InForce,
    Revoked,
    /// Its owner is disabled or does not exist.
    OwnerGone,
}

/// The secret of a key, and those that rotations have replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeySecrets {
    #[serde(with = "hash_text")]
    pub hash: SecretHash,
    /// Newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<ReplacedSecret>,
}

/// The secrets and restrictions of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyGrant {
    pub state: ApiKeyState,
    #[serde(flatten)]
    pub secrets: ApiKeySecrets,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "range_texts")]
    pub allowed_ips: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
}

/// Why a key may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyFault {
    /// The secret is not the key's. Nothing else may be revealed.
    WrongSecret,
    Revoked,
    OwnerGone,
    /// The secret has been replaced, and its grace period is over.
    Replaced,
    Expired,
    /// The key may not be used from this address.
    Address,
}

impl ApiKeySecrets {
    /// The secret of a new key.
    pub fn new(hash: SecretHash) -> ApiKeySecrets {
        ApiKeySecrets {
            hash,
            replaced: Vec::new(),
        }
    }

    /// The secrets after a rotation at `now`: the present one, and those before it, remain valid for at
    /// most `grace` milliseconds.
    #[must_use]
    pub fn rotate(&self, hash: SecretHash, grace: Millis, now: Millis) -> ApiKeySecrets {
        // Without a grace, the secret ends whatever clock the next request is judged by.
        let until = match grace {
            0 => 0,
            grace => now.saturating_add(grace),
        };
        let present = ReplacedSecret {
            hash: self.hash,
            until,
        };
        let earlier = self.replaced.iter().map(|replaced| ReplacedSecret {
            until: replaced.until.min(until),
            ..*replaced
        });
        let replaced = std::iter::once(present).chain(earlier);
        ApiKeySecrets {
            hash,
            replaced: replaced.take(MAX_REPLACED).collect(),
        }
    }

    /// Until when a secret is valid: `None` for the present one. Every secret is compared, whichever
    /// matches.
    fn validity(&self, presented: &SecretHash) -> Result<Option<Millis>, ApiKeyFault> {
        let mut found = self.hash.matches(presented).then_some(None);
        for replaced in &self.replaced {
            if replaced.hash.matches(presented) && found.is_none() {
                found = Some(Some(replaced.until));
            }
        }
        found.ok_or(ApiKeyFault::WrongSecret)
    }
}

impl ApiKeyGrant {
    /// Judges a presented secret at `now`, which comes from `ip`. Returns until when this secret is
    /// valid: a replaced one until the end of its grace period.
    ///
    /// # Errors
    /// The first fault, in the order of [`ApiKeyFault`].
    pub fn judge(
        &self,
        presented: &SecretHash,
        ip: IpAddr,
        now: Millis,
    ) -> Result<Option<Millis>, ApiKeyFault> {
        let replaced_until = self.secrets.validity(presented)?;
        match self.state {
            ApiKeyState::InForce => {}
            ApiKeyState::Revoked => return Err(ApiKeyFault::Revoked),
            ApiKeyState::OwnerGone => return Err(ApiKeyFault::OwnerGone),
        }
        if replaced_until.is_some_and(|until| until <= now) {
            return Err(ApiKeyFault::Replaced);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(ApiKeyFault::Expired);
        }
        if !self.allows(ip) {
            return Err(ApiKeyFault::Address);
        }
        let ends = [replaced_until, self.expires_at];
        Ok(ends.into_iter().flatten().min())
    }

    fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.allowed_ips.is_empty() || self.allowed_ips.iter().any(|range| range.contains(&ip))
    }
}

/// Hashes as hex text.
mod hash_text {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::SecretHash;

    pub(super) fn serialize<S: Serializer>(hash: &SecretHash, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(hash.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretHash, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&*text, &mut hash).map_err(|_| D::Error::custom("not a hash"))?;
        Ok(SecretHash(hash))
    }
}

/// Ranges of addresses as texts.
mod range_texts {
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(ranges: &[IpNet], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ranges.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let ranges = texts.iter().map(|text| text.parse());
        ranges.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn hash(number: u8) -> SecretHash {
        SecretHash([number; 32])
    }

    fn grant() -> ApiKeyGrant {
        ApiKeyGrant {
            state: ApiKeyState::InForce,
            secrets: ApiKeySecrets::new(hash(1)),
            allowed_ips: Vec::new(),
            expires_at: None,
        }
    }

    fn rotated(grant: &ApiKeyGrant, to: u8, grace: Millis, now: Millis) -> ApiKeyGrant {
        ApiKeyGrant {
            secrets: grant.secrets.rotate(hash(to), grace, now),
            ..grant.clone()
        }
    }

    #[test]
    fn wrong_secret_learns_nothing_else() {
        for state in [ApiKeyState::Revoked, ApiKeyState::OwnerGone] {
            let grant = ApiKeyGrant {
                state,
                allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
                expires_at: Some(1),
                ..grant()
            };
            let wrong = grant.judge(&hash(9), ANY, 2);
            assert_eq!(wrong, Err(ApiKeyFault::WrongSecret));
        }
    }

    #[test]
    fn faults_have_an_order() {
        let mut grant = ApiKeyGrant {
            state: ApiKeyState::Revoked,
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
            expires_at: Some(10),
            ..grant()
        };
        let judge =
            |grant: &ApiKeyGrant, ip: &str, now| grant.judge(&hash(1), ip.parse().unwrap(), now);
        assert_eq!(judge(&grant, "::1", 10), Err(ApiKeyFault::Revoked));
        grant.state = ApiKeyState::OwnerGone;
        assert_eq!(judge(&grant, "::1", 10), Err(ApiKeyFault::OwnerGone));
        grant.state = ApiKeyState::InForce;
        assert_eq!(judge(&grant, "::1", 10), Err(ApiKeyFault::Expired));
        assert_eq!(judge(&grant, "::1", 9), Err(ApiKeyFault::Address));
        assert_eq!(judge(&grant, "11.0.0.1", 9), Err(ApiKeyFault::Address));
        assert_eq!(judge(&grant, "10.2.3.4", 9), Ok(Some(10)));
        assert_eq!(judge(&grant, "::ffff:10.2.3.4", 9), Ok(Some(10)));
    }

    #[test]
    fn replaced_secret_is_valid_for_its_grace() {
        let first = rotated(&grant(), 2, 100, 1000);
        assert_eq!(first.judge(&hash(1), ANY, 1099), Ok(Some(1100)));
        assert_eq!(first.judge(&hash(1), ANY, 1100), Err(ApiKeyFault::Replaced));
        assert_eq!(first.judge(&hash(2), ANY, 5000), Ok(None));
        // A later rotation prolongs nothing, and may shorten.
        let second = rotated(&first, 3, 500, 1050);
        assert_eq!(second.judge(&hash(1), ANY, 1099), Ok(Some(1100)));
        assert_eq!(second.judge(&hash(2), ANY, 1549), Ok(Some(1550)));
        // Without a grace at once, also by a clock that is behind the one of the rotation.
        let third = rotated(&second, 4, 0, 1060);
        for old in 1..=3 {
            for now in [1, 1060] {
                let judged = third.judge(&hash(old), ANY, now);
                assert_eq!(judged, Err(ApiKeyFault::Replaced));
            }
        }
    }

    #[test]
    fn replaced_secrets_are_bounded() {
        let mut grant = grant();
        for number in 2..50 {
            grant = rotated(&grant, number, 1000, 0);
        }
        assert_eq!(grant.secrets.replaced.len(), MAX_REPLACED);
        assert_eq!(grant.judge(&hash(48), ANY, 1), Ok(Some(1000)));
        assert_eq!(grant.judge(&hash(1), ANY, 1), Err(ApiKeyFault::WrongSecret));
    }

    #[test]
    fn grant_survives_its_text() {
        let grant = ApiKeyGrant {
            allowed_ips: vec![
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
            expires_at: Some(7),
            ..rotated(&grant(), 2, 5, 6)
        };
        let text = serde_json::to_string(&grant).unwrap();
        assert_eq!(serde_json::from_str::<ApiKeyGrant>(&text).unwrap(), grant);
    }
}
