//! The decision: whether a request may pass, read top-down in order of cost.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::auth::session::{Millis, Session};
use crate::auth::token::CertificateHash;
use crate::events::Events;
use crate::issuers::verifier::Verifier;
use crate::limits::{Charge, Decision};
use crate::refusal::{Grounds, Refusal};
use crate::routing::{Auth, Require, Route};
use crate::sessions::durable::Durable;
use crate::settings::Live;
use crate::store::replica::Replica;
use crate::store::{Inquiry, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;

mod charges;
mod claim;
mod confirm;
mod grounds;
mod identity;
mod outage;
mod verdict;

pub use charges::counter_of_texts;
use claim::Claimed;
pub use verdict::{Client, Identity, Permit, PresentedBy, Refused, Whom};

/// What one request brings to the decision.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub headers: &'a HeaderMap,
    pub ip: IpAddr,
    /// This gateway's clock, for tokens; sessions and limits go by the store's.
    pub now: Millis,
    /// The client certificate of the connection, which bound tokens require.
    pub certificate: Option<&'a CertificateHash>,
}

/// Decides over requests by one configuration.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    pub live: &'a Live,
    pub settings: &'a crate::settings::Store,
    pub verifier: &'a Verifier,
    pub store: &'a Store,
    pub durable: &'a Durable,
    pub replica: &'a Replica,
    pub metrics: &'a Metrics,
    pub events: &'a Events,
    /// Of the request, for its events.
    pub request_id: &'a RequestId,
}

impl Admission<'_> {
    /// Lets a request pass or says why not.
    ///
    /// # Errors
    /// The refusal, with the limit decisions that its answer must carry.
    pub async fn admit(&self, route: &Arc<Route>, asked: Asked<'_>) -> Result<Permit, Refused> {
        let before = charges::before(route, &asked);
        let claimed = match route.auth {
            Auth::None => None,
            Auth::Required | Auth::Optional => match self.claim(asked).await {
                Ok(Some(claimed)) => Some(claimed),
                Ok(None) if route.auth == Auth::Optional => None,
                Ok(None) => {
                    let refused = Refused::because(Refusal::Unauthenticated, "no credential");
                    return Err(self.spend_then(&before, refused).await);
                }
                Err(refused)
                    if route.auth == Auth::Optional
                        && refused.clear_cookie
                        && refused.refusal != Refusal::AmbiguousCredentials =>
                {
                    return self.anonymous(route, asked, &before, true).await;
                }
                Err(refused) => return Err(self.spend_then(&before, refused).await),
            },
        };
        let Some(claimed) = claimed else {
            return self.anonymous(route, asked, &before, false).await;
        };
        let permit = self.confirm(route, asked, &before, &claimed).await;
        match permit {
            // A stale cookie on a route that does not insist is no obstacle.
            Err(refused)
                if route.auth == Auth::Optional
                    && claimed.by == PresentedBy::Cookie
                    && refused.clear_cookie =>
            {
                self.anonymous_after(route, asked, &before, refused.decisions)
                    .await
            }
            other => other.map_err(|refused| self.name_caller(&claimed, refused)),
        }
    }

    /// Finds out whom a call to the gateway's own endpoints is from. `None`: no credential.
    ///
    /// # Errors
    /// The credential does not hold, or the store cannot tell.
    pub async fn identify(&self, asked: Asked<'_>) -> Result<Option<Identity>, Refused> {
        let Some(claimed) = self.claim(asked).await? else {
            return Ok(None);
        };
        let nothing = Require::default();
        let seen = claimed.session.map(|id| self.replica.seen(id));
        let inquiry = self.inquiry(&claimed, seen.unwrap_or_default(), &[], &nothing, &[]);
        let idle = self.live.sessions.idle_timeout;
        let ticket = self.durable.ticket(self.store);
        let mut findings = match self.store.decide(&inquiry, idle).await {
            Ok(findings) => findings,
            Err(error) if self.durable.on().is_some() => {
                let identity = self.identity_without_store(asked, &claimed, error).await;
                return identity.map(Some).map_err(|refused| match refused.refusal {
                    // Signing out needs the database alone.
                    Refusal::StoreUnavailable => Refused {
                        lapsed: claimed.token,
                        ..refused
                    },
                    _ => refused,
                });
            }
            Err(error) => return Err(unknown(error)),
        };
        self.look_again(&claimed, &mut findings, asked).await?;
        if let Err(error) = self.settle_doubts(ticket, &claimed, &mut findings).await {
            return Err(Refused {
                lapsed: claimed.token,
                ..unknown(error)
            });
        }
        self.identity(&claimed, &inquiry, &findings, asked)
            .map(Some)
            .map_err(|refused| self.name_caller(&claimed, refused))
    }

    /// Goes on without the session whose cookie came: the limits before are spent by now, and are
    /// given back when one of those after refuses.
    async fn anonymous_after(
        &self,
        route: &Arc<Route>,
        asked: Asked<'_>,
        before: &[Charge],
        spent: Vec<Decision>,
    ) -> Result<Permit, Refused> {
        let joined = |more: Vec<Decision>| spent.iter().cloned().chain(more).collect();
        match self.anonymous(route, asked, &[], true).await {
            Ok(permit) => Ok(Permit {
                decisions: joined(permit.decisions),
                ..permit
            }),
            Err(refused) => {
                if refused.refusal == Refusal::RateLimited {
                    self.give_back(before);
                }
                Err(Refused {
                    decisions: joined(refused.decisions),
                    ..refused
                })
            }
        }
    }

    async fn anonymous(
        &self,
        route: &Arc<Route>,
        asked: Asked<'_>,
        before: &[Charge],
        clear_cookie: bool,
    ) -> Result<Permit, Refused> {
        let mut all = before.to_vec();
        all.extend(
            charges::after(route, &asked, None)
                .into_iter()
                .filter(|charge| charge.limit.binds(&[])),
        );
        let with_cookie = |refused| Refused {
            clear_cookie,
            ..refused
        };
        let decisions = self.charge(&all).await.map_err(with_cookie)?;
        refuse_over_limit(&decisions).map_err(with_cookie)?;
        if route.require != Require::default() {
            return Err(with_cookie(Refused {
                decisions,
                ..Refused::because(
                    Refusal::Unauthenticated,
                    "the route requires a role or a scope",
                )
            }));
        }
        Ok(Permit {
            route: Arc::clone(route),
            identity: None,
            decisions,
            clear_cookie,
        })
    }

    /// A request that fails authentication has spent the limits that need none; over one of them it
    /// is a 429 whatever its credential.
    async fn spend_then(&self, before: &[Charge], refused: Refused) -> Refused {
        match self.charge(before).await {
            Ok(decisions) => match refuse_over_limit(&decisions) {
                Ok(()) => Refused {
                    decisions,
                    ..refused
                },
                // Whose it is, the log says all the same.
                Err(over) => Refused {
                    lapsed: refused.lapsed,
                    ..over
                },
            },
            Err(unavailable) => unavailable,
        }
    }

    /// Charges limits alone, by the store or as each of them wants it without one.
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<Decision>, Refused> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let decisions = match self.store.charge(charges).await {
            Ok(decisions) => decisions,
            Err(_) => self.charge_without_store(charges)?,
        };
        self.count(&decisions);
        Ok(decisions)
    }

    /// Gives back what was spent a moment ago, off the request's path. It is tried once: whether a
    /// try that timed out was done nobody knows, and given back twice more is admitted than allowed.
    fn give_back(&self, charges: &[Charge]) {
        if charges.is_empty() {
            return;
        }
        let (store, charges) = (self.store.clone(), charges.to_vec());
        tokio::spawn(async move {
            if store.refund(&charges).await.is_err() {
                tracing::debug!("a limit could not be given back");
            }
        });
    }

    fn inquiry<'q>(
        &self,
        claimed: &'q Claimed,
        (known, last_access): (Option<Arc<Session>>, Millis),
        before: &'q [Charge],
        require: &'q Require,
        after: &'q [Charge],
    ) -> Inquiry<'q> {
        Inquiry {
            before,
            session: claimed.session,
            known,
            last_access,
            blacklist_key: claimed
                .token
                .as_ref()
                .map(|claims| claims.blacklist_key.as_str()),
            cut_off_of: claimed.person,
            issued_at: claimed
                .token
                .as_ref()
                .and_then(|claims| claims.issued_second()),
            require,
            after,
        }
    }

    /// Counts each limit's decision.
    fn count(&self, decisions: &[Decision]) {
        for decision in decisions {
            let outcome = match (decision.degraded, decision.allowed, decision.limit.shadow) {
                (true, _, _) => "degraded",
                (false, false, true) => "shadow_limited",
                (false, false, false) => "limited",
                (false, true, _) => "allowed",
            };
            self.metrics.limited(&decision.limit.name, outcome);
        }
    }
}

fn refuse_over_limit(decisions: &[Decision]) -> Result<(), Refused> {
    let refused = decisions.iter().filter(|decision| decision.refuses());
    let Some(retry_after) = refused.map(|decision| decision.retry_after).max() else {
        return Ok(());
    };
    Err(Refused {
        decisions: decisions.to_vec(),
        retry_after: Some(retry_after),
        ..Refused::because(Refusal::RateLimited, "over a limit")
    })
}

fn meets(require: &Require, identity: &Identity, decisions: &[Decision]) -> Result<(), Refused> {
    if require.met_by(identity.roles(), identity.scopes()) {
        return Ok(());
    }
    let scopes = require.scopes.iter().map(String::as_str);
    let missing: Vec<&str> = scopes
        .filter(|scope| !identity.scopes().iter().any(|own| own == scope))
        .collect();
    let lacks_scope = !missing.is_empty();
    let lacks_role = !require.role_met_by(identity.roles());
    let grounds = Grounds {
        user: Some(identity.user().to_owned()),
        session: identity.session().map(|session| session.id),
        role: lacks_role.then(|| require.roles.join(",")),
        scope: lacks_scope.then(|| missing.join(" ")),
        ..Grounds::default()
    };
    Err(Refused {
        decisions: decisions.to_vec(),
        scope: lacks_scope.then(|| require.scopes.join(" ")),
        grounds: Some(Box::new(grounds)),
        ..Refused::because(
            if lacks_scope {
                Refusal::InsufficientScope
            } else {
                Refusal::Forbidden
            },
            missing_reason(lacks_scope, identity),
        )
    })
}

fn missing_reason(lacks_scope: bool, identity: &Identity) -> &'static str {
    match (lacks_scope, identity.session()) {
        (true, Some(_)) => "the user lacks a scope: `portcullis users set-roles --scope` grants it",
        (true, None) => "the token lacks a scope",
        (false, _) => "the user has none of the roles",
    }
}

fn unknown(error: StoreError) -> Refused {
    Refused::because(
        Refusal::StoreUnavailable,
        match error {
            StoreError::Timeout => "the store did not answer in time",
            StoreError::Unreachable => "the store cannot be reached",
            StoreError::BreakerOpen => "the store is too slow and is left alone",
            StoreError::Refused => "the store refused",
            StoreError::ReadOnly => "the store takes no writes",
            StoreError::Malformed => "the store answered nonsense",
            StoreError::Unreplicated => "replicas did not confirm",
        },
    )
}
