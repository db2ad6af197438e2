//! Signing in with credentials that a backend checks.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::auth::session::SessionToken;
use crate::database::User;
use crate::identity::backend::{BackendRequest, BackendResponse};
use crate::identity::normalize::{self, AccountName};
use crate::identity::sign_in_attempt::SignInAttempt;
use crate::identity::throttle::{self, FailureCounters};
use crate::identity::{AccountError, Accounts, ClientInfo, SignedIn};
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal};
use crate::settings::Reloadable;
use crate::settings::backend::BackendSettings;

/// A sign-in that a backend is to judge.
pub struct BackendSignIn<'a> {
    /// Everything in the body that may name the account; at least one.
    pub names: Vec<AccountName>,
    /// What the client sent, byte for byte.
    pub body: Bytes,
    pub content_type: Option<&'a HeaderValue>,
    pub request_id: &'a str,
    /// The session that the browser held until now; of the same user, it is replaced.
    pub previous_session: Option<SessionToken>,
}

impl Accounts {
    /// Signs somebody in whom the backend knows; `limits` is as in [`Accounts::sign_in`].
    ///
    /// # Errors
    /// Every [`Failure`]; what the backend does not answer properly is one of the upstream refusals
    /// and never a wrong password.
    pub async fn sign_in_with_backend(
        &self,
        live: &Reloadable,
        backend: &Arc<BackendSettings>,
        attempt: BackendSignIn<'_>,
        visitor: &ClientInfo,
        limits: &mut Vec<Decision>,
    ) -> Result<(SignedIn, BackendResponse), AccountError> {
        self.admit_attempt(&live.identity, visitor, limits).await?;
        let ready = self.backend_client.client_for(backend)?;
        let failures = self.failure_counters(live, &attempt.names, visitor).await?;
        let known_here = failures.iter().all(|failures| failures.is_known_address);
        let turn = ready.acquire_slot(known_here).await?;
        let trial = SignInAttempt {
            counters: &failures,
            user: None,
            ip: visitor.ip,
        };
        self.check_failures(&trial, limits).await?;
        let question = BackendRequest {
            body: attempt.body,
            content_type: attempt.content_type,
            request_id: attempt.request_id,
            visitor,
        };
        let yes = match ready.check_credentials(&turn, question).await {
            Ok(yes) => {
                self.finish_attempt(&trial, None, limits).await?;
                yes
            }
            Err(AccountError::Rejected(it)) if it.refusal == Refusal::InvalidCredentials => {
                let wrong = Some(Reason::BackendRejected);
                self.finish_attempt(&trial, wrong, limits).await?;
                return Err(Refusal::InvalidCredentials.into());
            }
            // Nothing was learned of the credentials.
            Err(failure) => return Err(failure),
        };
        drop(turn);
        self.end_previous_session(
            &yes.user,
            attempt.previous_session,
            live.sessions.idle_timeout,
        )
        .await?;
        let signed_in = self.open_session(live, yes.user, visitor).await?;
        self.report_sign_in(&signed_in, visitor);
        for name in confirmed_names(&attempt.names, &signed_in.user) {
            throttle::record_known_address(&self.store, name.as_str(), visitor.ip).await;
        }
        Ok((signed_in, yes.response))
    }

    /// The counters of every account that may be meant.
    async fn failure_counters(
        &self,
        live: &Reloadable,
        names: &[AccountName],
        visitor: &ClientInfo,
    ) -> Result<Vec<FailureCounters>, AccountError> {
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let account = name.as_str();
            let known = throttle::has_signed_in_from(&self.store, account, visitor.ip).await?;
            all.push(FailureCounters::for_account(
                account,
                visitor.ip,
                known,
                &live.identity,
            ));
        }
        Ok(all)
    }
}

/// The names that a sign-in has proven to be the user's. Of several, the backend may have read one: the
/// others may be anybody's, so only those count that it has returned.
fn confirmed_names<'n>(
    names: &'n [AccountName],
    user: &User,
) -> impl Iterator<Item = &'n AccountName> {
    let [email, id] = [&user.email, &user.id].map(|text| normalize::fold(text));
    let is_only = names
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a == b));
    let names = names.iter();
    names.filter(move |name| is_only || [email.as_str(), id.as_str()].contains(&name.as_str()))
}
