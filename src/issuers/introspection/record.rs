//! The latest response of an endpoint about a token, and how long it counts.

use std::sync::Arc;
use std::time::Duration;

use super::IntrospectionError;
use crate::auth::session::Millis;
use crate::auth::token::{IntrospectionVerdict, VerifiedToken, VerifyError};
use crate::issuers::verifier::TokenRejection;
use crate::settings::introspection::IntrospectionOutage;

/// How long a token is not sent again after a call without a usable response: the delay that clients
/// are told to wait.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long a yes counts while the endpoint does not respond.
const OUTAGE_GRACE: Duration = Duration::from_secs(5 * 60);
/// How long before the end of a call a request that uses its record may have arrived, in milliseconds.
const ARRIVED_BEFORE: Millis = 10_000;
/// Bytes of a record, beside those of its claims.
const OVERHEAD: u64 = 512;

/// The outcome of the latest call about one token.
#[derive(Debug)]
pub(super) struct IntrospectionRecord {
    /// When the token was sent, or, without a usable response, when the call ended.
    counts_from: Millis,
    counts_for: Millis,
    outcome: Outcome,
    /// Bytes of the response.
    size: usize,
}

#[derive(Debug)]
enum Outcome {
    Verdict(IntrospectionVerdict),
    /// Nothing usable; with an earlier yes, where it counts.
    Unknown(Option<EarlierYes>),
}

/// A yes that counts while the endpoint does not respond.
#[derive(Debug, Clone)]
struct EarlierYes {
    token: VerifiedToken,
    until: Millis,
}

impl IntrospectionRecord {
    /// The record of a response about a token that was sent at `sent_at`.
    pub(super) fn of_verdict(
        verdict: IntrospectionVerdict,
        size: usize,
        sent_at: Millis,
        counts_for: Duration,
    ) -> IntrospectionRecord {
        IntrospectionRecord {
            counts_from: sent_at,
            counts_for: millis(counts_for),
            outcome: Outcome::Verdict(verdict),
            size,
        }
    }

    /// The record of a call without a usable response, after `previous`.
    pub(super) fn unknown(
        previous: Option<&IntrospectionRecord>,
        ended_at: Millis,
        on_outage: IntrospectionOutage,
    ) -> IntrospectionRecord {
        let earlier = match on_outage {
            IntrospectionOutage::Deny => None,
            IntrospectionOutage::Cached => previous.and_then(IntrospectionRecord::earlier_yes),
        };
        IntrospectionRecord {
            counts_from: ended_at,
            counts_for: millis(RETRY_DELAY),
            size: previous.map_or(0, |previous| previous.size),
            outcome: Outcome::Unknown(earlier),
        }
    }

    fn earlier_yes(&self) -> Option<EarlierYes> {
        match &self.outcome {
            Outcome::Verdict(IntrospectionVerdict::Active(token)) => Some(EarlierYes {
                token: token.clone(),
                until: self.counts_from.saturating_add(millis(OUTAGE_GRACE)),
            }),
            Outcome::Verdict(_) => None,
            Outcome::Unknown(earlier) => earlier.clone(),
        }
    }

    /// Whether the token need not be sent again, for a request that arrived at `now`. A clock that was
    /// set back makes records void.
    pub(super) fn is_current(&self, now: Millis) -> bool {
        let end = self.counts_from.saturating_add(self.counts_for);
        let start = self.counts_from.saturating_sub(ARRIVED_BEFORE);
        (start..end).contains(&now)
    }

    /// Whether the record is that of a call without a usable response.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    /// Whether the endpoint says that the token is active.
    pub(super) fn is_active(&self) -> bool {
        !matches!(
            self.outcome,
            Outcome::Verdict(IntrospectionVerdict::Inactive) | Outcome::Unknown(_)
        )
    }

    /// The token at `now`, if it is valid.
    pub(super) fn token(
        &self,
        leeway: Millis,
        now: Millis,
    ) -> Result<VerifiedToken, TokenRejection> {
        let unavailable = TokenRejection::NotIntrospected(IntrospectionError::Unavailable);
        let token = match &self.outcome {
            Outcome::Verdict(IntrospectionVerdict::Active(token)) => token,
            Outcome::Verdict(IntrospectionVerdict::Inactive) => {
                return Err(TokenRejection::Invalid("the token is not active"));
            }
            Outcome::Verdict(IntrospectionVerdict::Rejected(VerifyError::Expired(claims))) => {
                return Err(TokenRejection::Expired(Arc::clone(claims)));
            }
            Outcome::Verdict(IntrospectionVerdict::Rejected(VerifyError::Invalid(reason))) => {
                return Err(TokenRejection::Invalid(reason));
            }
            Outcome::Unknown(Some(earlier)) if now < earlier.until => &earlier.token,
            Outcome::Verdict(IntrospectionVerdict::Rejected(VerifyError::UnknownKey(_)))
            | Outcome::Unknown(_) => return Err(unavailable),
        };
        match token.time_rejection(leeway, now) {
            Some(rejection) => Err(rejection),
            None => Ok(token.clone()),
        }
    }

    /// Its share of the cache's memory, in bytes.
    pub(super) fn weight(&self) -> u64 {
        OVERHEAD + 2 * self.size as u64
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::token::fixtures::{NOW, introspection_rules};

    fn active(exp: &str) -> IntrospectionVerdict {
        let body = format!(r#"{{"active":true,"sub":"ann"{exp}}}"#);
        introspection_rules("corp")
            .read(body.as_bytes(), "key", 0, NOW)
            .unwrap()
    }

    fn recorded(verdict: IntrospectionVerdict) -> Arc<IntrospectionRecord> {
        let counts_for = Duration::from_secs(10);
        Arc::new(IntrospectionRecord::of_verdict(
            verdict, 100, NOW, counts_for,
        ))
    }

    #[test]
    fn response_counts_for_its_time_and_not_past_exp() {
        let record = recorded(active(&format!(r#","exp":{}"#, NOW / 1000 + 4)));
        for (now, is_current) in [
            (NOW, true),
            // The request came before the one that sent the token.
            (NOW - 1, true),
            (NOW + 9_999, true),
            (NOW + 10_000, false),
            (NOW - 10_000, true),
            (NOW - 10_001, false),
        ] {
            assert_eq!(record.is_current(now), is_current, "{now}");
        }
        assert!(record.token(0, NOW + 3_999).is_ok());
        assert!(matches!(
            record.token(0, NOW + 4_000),
            Err(TokenRejection::Expired(_))
        ));
    }

    #[test]
    fn earlier_yes_counts_for_five_minutes_where_it_is_configured() {
        let unavailable = TokenRejection::NotIntrospected(IntrospectionError::Unavailable);
        let yes = recorded(active(""));
        let unknown = |previous: &Arc<IntrospectionRecord>, at, on_outage| {
            Arc::new(IntrospectionRecord::unknown(
                Some(&**previous),
                at,
                on_outage,
            ))
        };
        let denied = unknown(&yes, NOW + 20_000, IntrospectionOutage::Deny);
        assert_eq!(
            denied.token(0, NOW + 20_000).err(),
            Some(unavailable.clone())
        );
        // However often the endpoint fails in between.
        let mut record = yes;
        for minute in 1..5 {
            let at = NOW + minute * 60_000;
            record = unknown(&record, at, IntrospectionOutage::Cached);
            assert!(record.token(0, at).is_ok(), "{minute}");
            assert!(record.is_unknown() && record.is_current(at + 999));
            assert!(!record.is_current(at + 1_000));
        }
        assert!(record.token(0, NOW + 299_999).is_ok());
        assert_eq!(
            record.token(0, NOW + 300_000).err(),
            Some(unavailable.clone())
        );
        let expiring = recorded(active(&format!(r#","exp":{}"#, NOW / 1000 + 60)));
        let record = unknown(&expiring, NOW + 30_000, IntrospectionOutage::Cached);
        assert!(record.token(0, NOW + 59_999).is_ok());
        assert!(record.token(0, NOW + 60_000).is_err());
        // A no is not forgotten by an outage, and is no yes.
        let no = recorded(IntrospectionVerdict::Inactive);
        let record = unknown(&no, NOW + 20_000, IntrospectionOutage::Cached);
        assert_eq!(record.token(0, NOW + 20_000).err(), Some(unavailable));
    }
}
