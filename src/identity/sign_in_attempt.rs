//! One attempt to sign in, and the failures that are counted of an account.
//!
//! They are looked at before credentials are compared, which spares the work, and again afterwards,
//! before anybody is told how it went. Of guesses that are made at once no more are told, right or
//! wrong, than may fail.

use std::net::IpAddr;

use super::throttle::FailureCounters;
use super::{AccountError, Accounts};
use crate::events::{Event, EventKind};
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal, Rejection, RejectionDetails};

/// An attempt, by what its failure counts for.
pub(super) struct SignInAttempt<'a> {
    /// Of every account that may be meant.
    pub(super) counters: &'a [FailureCounters],
    /// Whom the events concern, where it is known.
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
    /// Lets an attempt be made, unless there were too many failures.
    ///
    /// # Errors
    /// `RATE_LIMITED`, and the store without an answer.
    pub(super) async fn check_failures(
        &self,
        trial: &SignInAttempt<'_>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        for failures in trial.counters.iter().filter(|one| one.is_disclosed) {
            let standing = failures
                .peek(&self.store, self.sessions.is_durable())
                .await?;
            if standing.iter().any(|decision| !decision.allowed) {
                return self.reject_if_limited(trial, standing, limits);
            }
        }
        Ok(())
    }

    /// Reports how an attempt went, unless there were too many failures meanwhile. Of the disclosed
    /// counters the client learns one: the one that refuses, or else the last. Where one refuses that
    /// is not disclosed, the attempt is a wrong one.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` when the credentials are `wrong`, for the reason given, and those of
    /// [`Accounts::check_failures`].
    pub(super) async fn finish_attempt(
        &self,
        trial: &SignInAttempt<'_>,
        wrong: Option<Reason>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        let locked = self.is_locked(trial).await?;
        let wrong = if locked {
            Some(Reason::TooManyFailures)
        } else {
            wrong
        };
        let before = limits.len();
        // Each is counted, whatever the others say.
        let mut stand = Vec::with_capacity(trial.counters.len());
        for failures in trial.counters {
            let decisions = match wrong {
                None => {
                    failures
                        .peek(&self.store, self.sessions.is_durable())
                        .await?
                }
                Some(_) => failures.record_failure(&self.store).await,
            };
            match failures.is_disclosed {
                true => stand.push(decisions),
                // An attempt is counted once in the metrics.
                false if locked => {
                    self.record_decisions(decisions, &mut Vec::new());
                }
                false => {}
            }
        }
        for decisions in stand {
            limits.truncate(before);
            self.reject_if_limited(trial, decisions, limits)?;
        }
        let Some(reason) = wrong else {
            return Ok(());
        };
        let kind = match locked {
            true => EventKind::SignInLimited,
            false => EventKind::SignInFailed,
        };
        self.report_attempt(trial, kind, reason);
        Err(trial.authentication_error(Refusal::InvalidCredentials, reason))
    }

    /// Whether a counter that is not disclosed refuses.
    async fn is_locked(&self, trial: &SignInAttempt<'_>) -> Result<bool, AccountError> {
        let mut locked = false;
        for failures in trial.counters.iter().filter(|one| !one.is_disclosed) {
            let standing = failures
                .peek(&self.store, self.sessions.is_durable())
                .await?;
            locked |= standing.iter().any(|decision| !decision.allowed);
        }
        Ok(locked)
    }

    fn reject_if_limited(
        &self,
        trial: &SignInAttempt<'_>,
        decisions: Vec<Decision>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        if self.record_decisions(decisions, limits) {
            return Ok(());
        }
        self.report_attempt(trial, EventKind::SignInLimited, Reason::TooManyFailures);
        Err(trial.authentication_error(Refusal::RateLimited, Reason::TooManyFailures))
    }

    fn report_attempt(&self, trial: &SignInAttempt<'_>, kind: EventKind, reason: Reason) {
        let event = Event::new(kind).ip(trial.ip).reason(reason.as_str());
        self.events.record(match trial.user {
            Some(user) => event.user(user),
            None => event,
        });
    }
}
