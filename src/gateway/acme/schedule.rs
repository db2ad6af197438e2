//! When certificates are ordered, renewed, and tried again after a failure.

use std::time::Duration;

use crate::auth::session::Millis;
use crate::clock::millis;
use crate::database::AcmeCertificateState;
use crate::telemetry::metrics::AcmeOutcome;

/// First pause after an error, such as an authority that is down; it doubles up to [`MAX_ERROR_PAUSE`].
const ERROR_PAUSE: Duration = Duration::from_secs(5);
const MAX_ERROR_PAUSE: Duration = Duration::from_hours(1);
/// First pause after a refusal; it doubles up to [`MAX_REFUSAL_PAUSE`]. Let's Encrypt permits five failed
/// validations of a domain per hour.
const REFUSAL_PAUSE: Duration = Duration::from_mins(5);
const MAX_REFUSAL_PAUSE: Duration = Duration::from_hours(6);
/// First pause where the authority limits orders and does not say for how long.
const LIMIT_PAUSE: Duration = Duration::from_hours(1);
/// Longest pause, whatever the authority requests.
const MAX_PAUSE: Duration = Duration::from_hours(24);
/// Pause after a certificate that is due for renewal when it is issued.
pub(super) const DUE_AT_ISSUE_PAUSE: Duration = Duration::from_hours(1);

/// Whether a certificate is to be ordered now. A pause that is longer than any was recorded with a
/// wrong clock and is void.
pub(super) fn is_due(state: Option<&AcmeCertificateState>, now: Millis) -> bool {
    let Some(state) = state else {
        return true;
    };
    let is_pausing = now < state.retry_at && state.retry_at <= now + millis(MAX_PAUSE);
    !is_pausing && (state.version == 0 || now >= state.renew_at)
}

/// When a certificate is renewed: at two thirds of its life, up to a 24th of it earlier. `jitter` is
/// from 0 to 1.
pub(super) fn renew_at(not_before: Millis, not_after: Millis, jitter: f64) -> Millis {
    let life = not_after.saturating_sub(not_before);
    let jitter = (jitter.clamp(0.0, 1.0) * 1000.0) as u64;
    not_before + life / 3 * 2 - life / 24_000 * jitter
}

/// The pause after a failed attempt, by the number of failures before it.
pub(super) fn pause(
    outcome: AcmeOutcome,
    failures: u64,
    retry_after: Option<Duration>,
) -> Duration {
    let (first, longest) = match outcome {
        AcmeOutcome::Refused => (REFUSAL_PAUSE, MAX_REFUSAL_PAUSE),
        AcmeOutcome::RateLimited => (LIMIT_PAUSE, MAX_PAUSE),
        AcmeOutcome::Issued | AcmeOutcome::Error => (ERROR_PAUSE, MAX_ERROR_PAUSE),
    };
    let doubled = 1_u32 << failures.min(20);
    let own = first.saturating_mul(doubled).min(longest);
    match (outcome, retry_after) {
        (AcmeOutcome::RateLimited, Some(requested)) => requested.max(ERROR_PAUSE),
        (_, Some(requested)) => own.max(requested),
        (_, None) => own,
    }
    .min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 86_400_000;

    fn state(version: u64, renew_at: Millis, retry_at: Millis) -> AcmeCertificateState {
        AcmeCertificateState {
            directory: "https://ca.example/".to_owned(),
            domain: "a.example".to_owned(),
            version,
            renew_at,
            failures: 0,
            retry_at,
        }
    }

    #[test]
    fn certificate_is_due_when_it_is_missing_or_to_be_renewed() {
        let now = 100 * DAY;
        for (state, expected) in [
            (None, true),
            (Some(state(0, 0, 0)), true),
            (Some(state(0, 0, now + 1)), false),
            (Some(state(0, 0, now)), true),
            (Some(state(1, now + 1, 0)), false),
            (Some(state(1, now, 0)), true),
            (Some(state(1, now, now + 1)), false),
            (Some(state(1, now, now + DAY)), false),
            (Some(state(1, now, now + DAY + 1)), true),
        ] {
            assert_eq!(is_due(state.as_ref(), now), expected, "{state:?}");
        }
    }

    #[test]
    fn renewal_is_at_two_thirds_of_life() {
        assert_eq!(renew_at(DAY, 91 * DAY, 0.0), 61 * DAY);
        assert_eq!(renew_at(DAY, 91 * DAY, 1.0), 61 * DAY - 90 * DAY / 24);
        assert_eq!(renew_at(DAY, DAY, 0.5), DAY);
        assert_eq!(renew_at(2 * DAY, DAY, 0.5), 2 * DAY);
        let short = renew_at(0, 30_000, 0.999);
        assert!((18_700..=20_000).contains(&short), "{short}");
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        use AcmeOutcome::{Error, RateLimited, Refused};
        let (second, minute, hour) = (1, 60, 3_600);
        for (outcome, failures, retry_after, expected) in [
            (Error, 0, None, 5 * second),
            (Error, 1, None, 10 * second),
            (Error, 100, None, hour),
            (Error, 0, Some(minute), minute),
            (Error, 100, Some(minute), hour),
            (Refused, 0, None, 5 * minute),
            (Refused, 2, None, 20 * minute),
            (Refused, u64::MAX, None, 6 * hour),
            (RateLimited, 0, None, hour),
            (RateLimited, 0, Some(10 * minute), 10 * minute),
            (RateLimited, 5, Some(0), 5 * second),
            (RateLimited, 9, None, 24 * hour),
            (RateLimited, 0, Some(u64::MAX), 24 * hour),
        ] {
            let retry_after = retry_after.map(Duration::from_secs);
            let pause = pause(outcome, failures, retry_after).as_secs();
            assert_eq!(pause, expected, "{outcome:?} {failures} {retry_after:?}");
        }
    }
}
