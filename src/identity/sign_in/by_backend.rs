//! Sign-in with credentials that a backend checks.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::auth::session::SessionToken;
use crate::database::User;
use crate::identity::backend::{BackendRequest, BackendResponse};
use crate::identity::normalize::{self, AccountName};
use crate::identity::sign_in::SessionOrigin;
use crate::identity::sign_in_attempt::SignInAttempt;
use crate::identity::throttle::{self, FailureCounters};
use crate::identity::{AccountError, Accounts, ClientInfo, SignedIn};
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal};
use crate::settings::Reloadable;
use crate::settings::backend::BackendSettings;

/// A sign-in that a backend decides.
pub struct BackendSignIn<'a> {
    /// All account names in the body; at least one.
    pub names: Vec<AccountName>,
    /// The client's body, byte for byte.
    pub body: Bytes,
    pub content_type: Option<&'a HeaderValue>,
    pub request_id: &'a str,
    /// The session of the browser's cookie; replaced if it is the same user's.
    pub previous_session: Option<SessionToken>,
}

impl Accounts {
    /// Signs in a user of the backend; `limits` is as in [`Accounts::sign_in`].
    ///
    /// # Errors
    /// Every [`AccountError`]; an invalid backend response is an upstream refusal, never a wrong
    /// password.
    pub async fn sign_in_with_backend(
        &self,
        settings: &Reloadable,
        backend: &Arc<BackendSettings>,
        attempt: BackendSignIn<'_>,
        client_info: &ClientInfo,
        limits: &mut Vec<Decision>,
    ) -> Result<(SignedIn, BackendResponse), AccountError> {
        self.admit_attempt(&settings.identity, client_info.ip, limits)
            .await?;
        let client = self.backend_client.client_for(backend)?;
        let failures = self
            .failure_counters(settings, &attempt.names, client_info)
            .await?;
        let known_here = failures.iter().all(|failures| failures.is_known_address);
        let slot = client.acquire_slot(known_here).await?;
        let sign_in = SignInAttempt {
            counters: &failures,
            user: None,
            ip: client_info.ip,
        };
        self.check_failures(&sign_in, limits).await?;
        let request = BackendRequest {
            body: attempt.body,
            content_type: attempt.content_type,
            request_id: attempt.request_id,
            client_info,
        };
        let checked = client.check_credentials(&slot, request).await;
        let login = self.record_check(&sign_in, checked, limits).await?;
        drop(slot);
        self.end_previous_session(
            &login.user,
            attempt.previous_session,
            settings.sessions.idle_timeout,
        )
        .await?;
        let signed_in = self
            .open_session(settings, login.user, SessionOrigin::Local, client_info)
            .await?;
        self.report_sign_in(&signed_in, client_info);
        for name in confirmed_names(&attempt.names, &signed_in.user) {
            throttle::record_known_address(&self.store, name.as_str(), client_info.ip).await;
        }
        Ok((signed_in, login.response))
    }

    /// Counts the attempt by the backend's response to its credentials.
    async fn record_check<T>(
        &self,
        attempt: &SignInAttempt<'_>,
        checked: Result<T, AccountError>,
        limits: &mut Vec<Decision>,
    ) -> Result<T, AccountError> {
        match checked {
            Ok(login) => {
                self.finish_attempt(attempt, None, limits).await?;
                Ok(login)
            }
            Err(AccountError::Rejected(it)) if it.refusal == Refusal::InvalidCredentials => {
                let reason = Some(Reason::BackendRejected);
                self.finish_attempt(attempt, reason, limits).await?;
                Err(Refusal::InvalidCredentials.into())
            }
            // The outcome for the credentials is unknown.
            Err(failure) => Err(failure),
        }
    }

    /// Returns the failure counters of every account that the names may identify.
    async fn failure_counters(
        &self,
        settings: &Reloadable,
        names: &[AccountName],
        client_info: &ClientInfo,
    ) -> Result<Vec<FailureCounters>, AccountError> {
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let account = name.as_str();
            let is_known =
                throttle::has_signed_in_from(&self.store, account, client_info.ip).await?;
            all.push(FailureCounters::for_account(
                account,
                client_info.ip,
                is_known,
                &settings.identity,
            ));
        }
        Ok(all)
    }
}

/// Returns the names that a sign-in has proven to be the user's. With several names the backend may
/// have read only one and the others may belong to other users, so only names that it returned
/// count.
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
