//! Why a certificate could not be ordered.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;

use super::authority::AuthorityError;
use crate::clock;
use crate::database;
use crate::store::StoreError;
use crate::telemetry::metrics::AcmeOutcome;

/// Maximum length of a message, which may contain text of the authority, in characters.
const MAX_MESSAGE: usize = 500;

/// A failed attempt.
#[derive(Debug)]
pub(super) struct OrderFailure {
    pub(super) outcome: AcmeOutcome,
    /// For the log.
    pub(super) message: String,
    /// The pause that the authority requests.
    pub(super) retry_after: Option<Duration>,
    /// Whether the authority does not know the account.
    pub(super) is_account_unknown: bool,
}

impl OrderFailure {
    /// The authority declines the order, or responds with what the order is not.
    pub(super) fn refused(message: impl Into<String>) -> OrderFailure {
        OrderFailure::new(AcmeOutcome::Refused, &message.into())
    }

    /// The attempt was not completed.
    pub(super) fn error(message: impl Into<String>) -> OrderFailure {
        OrderFailure::new(AcmeOutcome::Error, &message.into())
    }

    fn new(outcome: AcmeOutcome, message: &str) -> OrderFailure {
        OrderFailure {
            outcome,
            message: bounded(message),
            retry_after: None,
            is_account_unknown: false,
        }
    }

    fn of_problem(problem: &instant_acme::Problem) -> OrderFailure {
        let name = problem.r#type.as_deref().unwrap_or_default();
        let name = name.trim_start_matches("urn:ietf:params:acme:error:");
        let outcome = match name {
            "rateLimited" => AcmeOutcome::RateLimited,
            "badNonce" | "serverInternal" | "accountDoesNotExist" => AcmeOutcome::Error,
            _ if problem.status.is_some_and(|status| status >= 500) => AcmeOutcome::Error,
            _ => AcmeOutcome::Refused,
        };
        let mut message = format!("{name}: {}", problem.detail.as_deref().unwrap_or_default());
        for part in &problem.subproblems {
            message += &format!("; {part}");
        }
        OrderFailure {
            is_account_unknown: name == "accountDoesNotExist",
            ..OrderFailure::new(outcome, &message)
        }
    }
}

impl From<instant_acme::Error> for OrderFailure {
    fn from(error: instant_acme::Error) -> OrderFailure {
        match &error {
            instant_acme::Error::Api(problem) => OrderFailure::of_problem(problem),
            instant_acme::Error::Json(_) => {
                OrderFailure::error(format!("the response is not one of ACME: {error}"))
            }
            instant_acme::Error::Timeout(Some(next)) => OrderFailure {
                retry_after: Some(next.saturating_duration_since(clock::monotonic())),
                ..OrderFailure::error("the authority has not completed the order")
            },
            instant_acme::Error::Other(source) => {
                let outcome = match source.downcast_ref() {
                    Some(AuthorityError::Status(StatusCode::TOO_MANY_REQUESTS)) => {
                        AcmeOutcome::RateLimited
                    }
                    _ => AcmeOutcome::Error,
                };
                OrderFailure::new(outcome, &with_sources(&**source))
            }
            _ => OrderFailure::error(with_sources(&error)),
        }
    }
}

impl From<database::Error> for OrderFailure {
    fn from(error: database::Error) -> OrderFailure {
        OrderFailure::error(with_sources(&error))
    }
}

impl From<StoreError> for OrderFailure {
    fn from(error: StoreError) -> OrderFailure {
        OrderFailure::error(format!("the challenge cannot be stored: {error}"))
    }
}

/// An error with those that caused it.
pub(super) fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text += &format!(": {part}");
        }
        next = source.source();
    }
    text
}

/// A text of another party in one line of bounded length.
fn bounded(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_MESSAGE).map(printable).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn failure(name: &str) -> OrderFailure {
        let name = format!("urn:ietf:params:acme:error:{name}");
        let problem = json!({ "type": name, "detail": "no\nreason" });
        let problem = serde_json::from_value::<instant_acme::Problem>(problem).unwrap();
        instant_acme::Error::Api(problem).into()
    }

    #[test]
    fn problems_are_refusals_limits_or_errors() {
        for (name, expected) in [
            ("rejectedIdentifier", AcmeOutcome::Refused),
            ("unauthorized", AcmeOutcome::Refused),
            ("caa", AcmeOutcome::Refused),
            ("rateLimited", AcmeOutcome::RateLimited),
            ("serverInternal", AcmeOutcome::Error),
            ("badNonce", AcmeOutcome::Error),
            ("accountDoesNotExist", AcmeOutcome::Error),
        ] {
            let failure = failure(name);
            assert_eq!(failure.outcome, expected, "{name}");
            assert_eq!(failure.message, format!("{name}: no reason"));
            assert_eq!(failure.is_account_unknown, name == "accountDoesNotExist");
        }
    }

    #[test]
    fn statuses_without_a_problem_are_limits_or_errors() {
        for (status, expected) in [
            (StatusCode::TOO_MANY_REQUESTS, AcmeOutcome::RateLimited),
            (StatusCode::SERVICE_UNAVAILABLE, AcmeOutcome::Error),
            (StatusCode::FORBIDDEN, AcmeOutcome::Error),
        ] {
            let error = AuthorityError::Status(status);
            let failure = OrderFailure::from(instant_acme::Error::Other(Box::new(error)));
            assert_eq!(failure.outcome, expected, "{status}");
            let message = format!("the authority responds with status {status}");
            assert_eq!(failure.message, message);
        }
    }

    #[test]
    fn messages_are_bounded() {
        let failure = OrderFailure::refused("é".repeat(10_000));
        assert_eq!(failure.message, "é".repeat(500));
    }
}
