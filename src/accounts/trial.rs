//! One attempt to sign in, and the failures that are counted of an account.
//!
//! They are looked at before credentials are compared, which spares the work, and again afterwards,
//! before anybody is told how it went. Of guesses that are made at once no more are told, right or
//! wrong, than may fail.

use std::net::IpAddr;

use super::attempts::Failures;
use super::{Accounts, Failure};
use crate::events::{Event, Kind};
use crate::limits::Decision;
use crate::refusal::Refusal;

/// Why an attempt was refused whatever the password, for the log.
const LIMITED: &str = "too many failures to sign in to this account";

/// An attempt, by what its failure counts for.
pub(super) struct Trial<'a> {
    /// Of every account that may be meant.
    pub(super) failures: &'a [Failures],
    /// Whom the events concern, where it is known.
    pub(super) user: Option<&'a str>,
    pub(super) ip: IpAddr,
}

impl Trial<'_> {
    fn failure(&self, refusal: Refusal, reason: &'static str) -> Failure {
        Failure::Unproven {
            refusal,
            user: self.user.map(str::to_owned),
            reason,
        }
    }
}

impl Accounts {
    /// Lets an attempt be made, unless there were too many failures.
    ///
    /// # Errors
    /// `RATE_LIMITED`, and the store without an answer.
    pub(super) async fn look(
        &self,
        trial: &Trial<'_>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), Failure> {
        for failures in trial.failures.iter().filter(|one| one.disclosed) {
            let standing = failures.standing(&self.store, self.is_durable()).await?;
            if standing.iter().any(|decision| !decision.allowed) {
                return self.bear(trial, standing, limits);
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
    /// [`Accounts::look`].
    pub(super) async fn judge(
        &self,
        trial: &Trial<'_>,
        wrong: Option<&'static str>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), Failure> {
        let locked = self.is_locked(trial).await?;
        let wrong = if locked { Some(LIMITED) } else { wrong };
        let before = limits.len();
        // Each is counted, whatever the others say.
        let mut stand = Vec::with_capacity(trial.failures.len());
        for failures in trial.failures {
            let decisions = match wrong {
                None => failures.standing(&self.store, self.is_durable()).await?,
                Some(_) => failures.count(&self.store).await,
            };
            match failures.disclosed {
                true => stand.push(decisions),
                // An attempt is counted once in the metrics.
                false if locked => {
                    self.admitted(decisions, &mut Vec::new());
                }
                false => {}
            }
        }
        for decisions in stand {
            limits.truncate(before);
            self.bear(trial, decisions, limits)?;
        }
        let Some(reason) = wrong else {
            return Ok(());
        };
        let kind = match locked {
            true => Kind::SignInLimited,
            false => Kind::SignInFailed,
        };
        self.report_attempt(trial, kind, reason);
        Err(trial.failure(Refusal::InvalidCredentials, reason))
    }

    /// Whether a counter that is not disclosed refuses.
    async fn is_locked(&self, trial: &Trial<'_>) -> Result<bool, Failure> {
        let mut locked = false;
        for failures in trial.failures.iter().filter(|one| !one.disclosed) {
            let standing = failures.standing(&self.store, self.is_durable()).await?;
            locked |= standing.iter().any(|decision| !decision.allowed);
        }
        Ok(locked)
    }

    fn bear(
        &self,
        trial: &Trial<'_>,
        decisions: Vec<Decision>,
        limits: &mut Vec<Decision>,
    ) -> Result<(), Failure> {
        if self.admitted(decisions, limits) {
            return Ok(());
        }
        self.report_attempt(trial, Kind::SignInLimited, LIMITED);
        Err(trial.failure(Refusal::RateLimited, LIMITED))
    }

    fn report_attempt(&self, trial: &Trial<'_>, kind: Kind, reason: &'static str) {
        let event = Event::new(kind).ip(trial.ip).reason(reason);
        self.events.record(match trial.user {
            Some(user) => event.user(user),
            None => event,
        });
    }
}
