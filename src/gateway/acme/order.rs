//! One order of a certificate (RFC 8555, section 7.4).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, Problem,
    RetryPolicy,
};
use zeroize::Zeroizing;

use super::failure::OrderFailure;
use crate::settings::acme::ChallengeKind;
use crate::store::{AcmeChallenge, Store};
use crate::tls;

/// How long each step of an order may take at the authority.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);
/// Authorizations of one domain that an order may require. One is usual.
const MAX_AUTHORIZATIONS: usize = 4;

/// A certificate as it was issued.
pub(super) struct IssuedCertificate {
    /// PEM, the certificate itself first.
    pub(super) chain: String,
    /// PEM.
    pub(super) key: Zeroizing<String>,
    pub(super) parsed: tls::CertificateChain,
}

/// Orders the certificate of a domain.
pub(super) async fn order(
    account: &Account,
    domain: &str,
    kind: ChallengeKind,
    store: &Store,
) -> Result<IssuedCertificate, OrderFailure> {
    let identifiers = [Identifier::Dns(domain.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut challenges = Vec::new();
    let issued = complete(&mut order, domain, kind, store, &mut challenges).await;
    for challenge in challenges {
        if let Err(error) = store.put_acme_response(&challenge, None).await {
            tracing::debug!(%error, "the response to a challenge expires by itself");
        }
    }
    issued
}

async fn complete(
    order: &mut Order,
    domain: &str,
    kind: ChallengeKind,
    store: &Store,
    challenges: &mut Vec<AcmeChallenge>,
) -> Result<IssuedCertificate, OrderFailure> {
    respond(order, domain, kind, store, challenges).await?;
    let policy = RetryPolicy::new().timeout(STEP_TIMEOUT);
    match order.poll_ready(&policy).await {
        Ok(OrderStatus::Ready) => {}
        outcome => {
            if let Some(problem) = problem_of_challenges(order).await {
                return Err(instant_acme::Error::Api(problem).into());
            }
            outcome?;
            return Err(OrderFailure::refused("the authority rejects the challenge"));
        }
    }
    let key = Zeroizing::new(order.finalize().await?);
    let chain = order.poll_certificate(&policy).await?;
    let parsed = tls::parse_chain(chain.as_bytes(), key.as_bytes());
    let parsed = parsed.map_err(|error| OrderFailure::error(error.to_string()))?;
    if !parsed.names(domain) {
        return Err(OrderFailure::error(
            "the certificate does not name the domain",
        ));
    }
    Ok(IssuedCertificate { chain, key, parsed })
}

/// Publishes the responses to the challenges, and has the authority request them.
async fn respond(
    order: &mut Order,
    domain: &str,
    kind: ChallengeKind,
    store: &Store,
    challenges: &mut Vec<AcmeChallenge>,
) -> Result<(), OrderFailure> {
    let mut authorizations = order.authorizations();
    let mut count = 0;
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        count += 1;
        if count > MAX_AUTHORIZATIONS {
            let message = "the order requires too many authorizations";
            return Err(OrderFailure::refused(message));
        }
        // A previous order has proven control.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(match kind {
            ChallengeKind::TlsAlpn => ChallengeType::TlsAlpn01,
            ChallengeKind::Http => ChallengeType::Http01,
        });
        let Some(mut challenge) = challenge else {
            let message = "the authority does not offer the configured challenge";
            return Err(OrderFailure::refused(message));
        };
        let name = match kind {
            ChallengeKind::TlsAlpn => AcmeChallenge::Tls(domain.to_owned()),
            ChallengeKind::Http => AcmeChallenge::Http(challenge.token.clone()),
        };
        let response = challenge.key_authorization();
        store
            .put_acme_response(&name, Some(response.as_str()))
            .await?;
        challenges.push(name);
        challenge.set_ready().await?;
    }
    Ok(())
}

/// The reason why a challenge has failed, as the authority gives it.
async fn problem_of_challenges(order: &mut Order) -> Option<Problem> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        let mut problems = state.challenges.iter().filter_map(|one| one.error.as_ref());
        if let Some(problem) = problems.next() {
            return Some(problem.clone());
        }
    }
    None
}
