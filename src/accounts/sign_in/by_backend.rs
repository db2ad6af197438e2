//! Signing in with credentials that a backend checks.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::accounts::attempts::{self, Failures};
use crate::accounts::backend::{Answer, Question};
use crate::accounts::names::{self, AccountName};
use crate::accounts::trial::Trial;
use crate::accounts::{Accounts, Failure, SignedIn, Visitor};
use crate::auth::session::SessionToken;
use crate::directory::User;
use crate::limits::Decision;
use crate::refusal::Refusal;
use crate::settings::Live;
use crate::settings::backend::Backend;

/// A sign-in that a backend is to judge.
pub struct Attempt<'a> {
    /// Everything in the body that may name the account; at least one.
    pub names: Vec<AccountName>,
    /// What the client sent, byte for byte.
    pub body: Bytes,
    pub content_type: Option<&'a HeaderValue>,
    pub request_id: &'a str,
    /// The session that the browser held until now; of the same user, it is replaced.
    pub held: Option<SessionToken>,
}

impl Accounts {
    /// Signs somebody in whom the backend knows; `limits` is as in [`Accounts::sign_in`].
    ///
    /// # Errors
    /// Every [`Failure`]; what the backend does not answer properly is one of the upstream refusals
    /// and never a wrong password.
    pub async fn sign_in_by_backend(
        &self,
        live: &Live,
        backend: &Arc<Backend>,
        attempt: Attempt<'_>,
        visitor: &Visitor,
        limits: &mut Vec<Decision>,
    ) -> Result<(SignedIn, Answer), Failure> {
        self.admit_attempt(&live.identity, visitor, limits).await?;
        let ready = self.backends.ready(backend)?;
        let failures = self.failures(live, &attempt.names, visitor).await?;
        let known_here = failures.iter().all(|failures| failures.known_here);
        let turn = ready.turn(known_here).await?;
        let trial = Trial {
            failures: &failures,
            user: None,
            ip: visitor.ip,
        };
        self.look(&trial, limits).await?;
        let question = Question {
            body: attempt.body,
            content_type: attempt.content_type,
            request_id: attempt.request_id,
            visitor,
        };
        let yes = match ready.ask(&turn, question).await {
            Ok(yes) => {
                self.judge(&trial, None, limits).await?;
                yes
            }
            Err(Failure::Refused(Refusal::InvalidCredentials)) => {
                let wrong = Some("the backend rejected the credentials");
                self.judge(&trial, wrong, limits).await?;
                return Err(Refusal::InvalidCredentials.into());
            }
            // Nothing was learned of the credentials.
            Err(failure) => return Err(failure),
        };
        drop(turn);
        self.replace(&yes.user, attempt.held, live.sessions.idle_timeout)
            .await?;
        let signed_in = self.open_session(live, yes.user, visitor).await?;
        self.report_sign_in(&signed_in, visitor);
        for name in proven(&attempt.names, &signed_in.user) {
            attempts::remember_place(&self.store, name.as_str(), visitor.ip).await;
        }
        Ok((signed_in, yes.answer))
    }

    /// The counters of every account that may be meant.
    async fn failures(
        &self,
        live: &Live,
        names: &[AccountName],
        visitor: &Visitor,
    ) -> Result<Vec<Failures>, Failure> {
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let account = name.as_str();
            let known = attempts::knows_place(&self.store, account, visitor.ip).await?;
            all.push(Failures::of(account, visitor.ip, known, &live.identity));
        }
        Ok(all)
    }
}

/// The names that a sign-in has proven to be the user's. Of several, the backend may have read one: the
/// others may be anybody's, so only those count that it has returned.
fn proven<'n>(names: &'n [AccountName], user: &User) -> impl Iterator<Item = &'n AccountName> {
    let [email, id] = [&user.email, &user.id].map(|text| names::folded(text));
    let is_only = names
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a == b));
    let names = names.iter();
    names.filter(move |name| is_only || [email.as_str(), id.as_str()].contains(&name.as_str()))
}
