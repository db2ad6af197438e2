//! Signing in with credentials that a backend checks.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::accounts::attempts::{self, Failures};
use crate::accounts::backend::{Answer, Question};
use crate::accounts::names::Login;
use crate::accounts::{Accounts, Failure, SignedIn, Visitor};
use crate::directory::User;
use crate::events::{Event, Kind};
use crate::limits::Decision;
use crate::refusal::Refusal;
use crate::session::SessionToken;
use crate::settings::Live;
use crate::settings::backend::Backend;

/// A sign-in that a backend is to judge.
pub struct Attempt<'a> {
    /// Everything in the body that may name the account, as typed; at least one.
    pub names: Vec<String>,
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
        // Looked at and counted while the turn is held: as many guesses beyond the limit as there
        // are turns, and no more.
        let turn = ready.turn().await?;
        let failures = self.failures(live, &attempt.names, visitor).await?;
        let before = limits.len();
        for failures in &failures {
            // One account is told of: the one that refuses, or else the last.
            limits.truncate(before);
            let standing = failures.standing(&self.store, self.is_durable()).await?;
            if !self.admitted(standing, limits) {
                self.events
                    .record(Event::new(Kind::SignInLimited).ip(visitor.ip));
                return Err(Failure::Limited);
            }
        }
        let question = Question {
            body: attempt.body,
            content_type: attempt.content_type,
            request_id: attempt.request_id,
            visitor,
        };
        match ready.ask(&turn, question).await {
            Ok(yes) => {
                drop(turn);
                let signed_in = self
                    .admit_stranger(live, yes.user, attempt.held, visitor)
                    .await?;
                for name in &attempt.names {
                    attempts::remember_place(
                        &self.store,
                        Login::read(name).canonical(),
                        visitor.ip,
                    )
                    .await;
                }
                Ok((signed_in, yes.answer))
            }
            Err(failure) => {
                if matches!(failure, Failure::Refused(Refusal::InvalidCredentials)) {
                    for failures in &failures {
                        limits.truncate(before);
                        limits.extend(failures.count(&self.store).await);
                    }
                    self.events
                        .record(Event::new(Kind::SignInFailed).ip(visitor.ip));
                }
                Err(failure)
            }
        }
    }

    /// The counters of every account that may be meant.
    async fn failures(
        &self,
        live: &Live,
        names: &[String],
        visitor: &Visitor,
    ) -> Result<Vec<Failures>, Failure> {
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let login = Login::read(name);
            let account = login.canonical();
            let known = attempts::knows_place(&self.store, account, visitor.ip).await?;
            all.push(Failures::of(account, visitor.ip, known, &live.identity));
        }
        Ok(all)
    }

    /// Opens a session for somebody whom the database does not know.
    async fn admit_stranger(
        &self,
        live: &Live,
        user: User,
        held: Option<SessionToken>,
        visitor: &Visitor,
    ) -> Result<SignedIn, Failure> {
        if let Some(held) = held {
            self.replace(&user, &held, live.sessions.idle_timeout)
                .await?;
        }
        let signed_in = self.open_session(live, user, visitor).await?;
        self.events.record(
            Event::new(Kind::SignIn)
                .user(&signed_in.user.id)
                .session(signed_in.session.session.id)
                .ip(visitor.ip),
        );
        Ok(signed_in)
    }
}
