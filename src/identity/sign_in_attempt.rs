//! A sign-in attempt and the failure counters of its account.
//!
//! Counters are checked before credentials are compared, to save the work, and again before the
//! outcome is reported. Of concurrent guesses, no more are reported, right or wrong, than may fail.

use std::net::IpAddr;

use super::throttle::FailureCounters;
use super::{AccountError, Accounts};
use crate::events::{Event, EventKind};
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal, Rejection, RejectionDetails};

/// An attempt, with the counters that its failure is charged to.
pub(super) struct SignInAttempt<'a> {
    /// Counters of every account that the name may identify.
    pub(super) counters: &'a [FailureCounters],
    /// The user to record in events, if known.
    pub(super) user: Option<&'a str>,
    pub(super) ip: IpAddr,
}

impl SignInAttempt<'_> {
    fn authentication_error(&self, refusal: Refusal, reason: Reason) -> AccountError {
        let details = RejectionDetails {
            user: self.user.map(str::to_owned),
            ..RejectionDetails::default()
        };
        AccountError::Rejected(Rejection {
            details: Some(Box::new(details)),
            ..Rejection::new(refusal, reason)
        })
    }
}

impl Accounts {
    /// Admits an attempt unless there were too many failures.
    ///
    /// # Errors
    /// `RATE_LIMITED`, or an unavailable store.
    pub(super) async fn check_failures(
        &self,
        attempt: &SignInAttempt<'_>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        for failures in attempt.counters.iter().filter(|one| one.is_disclosed) {
            let decisions = failures
                .peek(&self.store, self.sessions.is_durable())
                .await?;
            if decisions.iter().any(|decision| !decision.allowed) {
                return self.reject_if_limited(attempt, decisions, limits);
            }
        }
        Ok(())
    }

    /// Reports the outcome of an attempt, unless there were too many failures in the meantime. Of
    /// the disclosed counters the client learns one: the one that refuses, else the last. If an
    /// undisclosed counter refuses, the attempt is reported as wrong.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` when the credentials are `wrong`, with the given reason, and the
    /// errors of [`Accounts::check_failures`].
    pub(super) async fn finish_attempt(
        &self,
        attempt: &SignInAttempt<'_>,
        wrong: Option<Reason>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        let locked = self.is_locked(attempt).await?;
        let wrong = if locked {
            Some(Reason::TooManyFailures)
        } else {
            wrong
        };
        let before = limits.len();
        // Each counter is charged, whatever the others return.
        let mut disclosed = Vec::with_capacity(attempt.counters.len());
        for failures in attempt.counters {
            let decisions = match wrong {
                None => {
                    failures
                        .peek(&self.store, self.sessions.is_durable())
                        .await?
                }
                Some(_) => failures.record_failure(&self.store).await,
            };
            match failures.is_disclosed {
                true => disclosed.push(decisions),
                // An attempt is counted once in the metrics.
                false if locked => {
                    self.record_decisions(decisions, &mut Vec::new());
                }
                false => {}
            }
        }
        for decisions in disclosed {
            limits.truncate(before);
            self.reject_if_limited(attempt, decisions, limits)?;
        }
        let Some(reason) = wrong else {
            return Ok(());
        };
        let kind = match locked {
            true => EventKind::SignInLimited,
            false => EventKind::SignInFailed,
        };
        self.report_attempt(attempt, kind, reason);
        Err(attempt.authentication_error(Refusal::InvalidCredentials, reason))
    }

    /// Whether an undisclosed counter refuses.
    async fn is_locked(&self, attempt: &SignInAttempt<'_>) -> Result<bool, AccountError> {
        let mut locked = false;
        for failures in attempt.counters.iter().filter(|one| !one.is_disclosed) {
            let decisions = failures
                .peek(&self.store, self.sessions.is_durable())
                .await?;
            locked |= decisions.iter().any(|decision| !decision.allowed);
        }
        Ok(locked)
    }

    fn reject_if_limited(
        &self,
        attempt: &SignInAttempt<'_>,
        decisions: Vec<Decision>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        if self.record_decisions(decisions, limits) {
            return Ok(());
        }
        self.report_attempt(attempt, EventKind::SignInLimited, Reason::TooManyFailures);
        Err(attempt.authentication_error(Refusal::RateLimited, Reason::TooManyFailures))
    }

    fn report_attempt(&self, attempt: &SignInAttempt<'_>, kind: EventKind, reason: Reason) {
        let event = Event::new(kind).ip(attempt.ip).reason(reason.as_str());
        self.events.record(match attempt.user {
            Some(user) => event.user(user),
            None => event,
        });
    }
}
