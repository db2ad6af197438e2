//! Registration and sign-in.

pub(super) mod by_backend;
mod new_session;
mod user_checks;

use std::net::IpAddr;
use std::time::Duration;

pub use new_session::SessionOrigin;
use new_session::{new_session, refresh_expiry, session_entry};
use user_checks::check_user_id;

use super::normalize::{self, LoginName};
use super::passwords::HashSlot;
use super::refresh_token::RefreshToken;
use super::sign_in_attempt::SignInAttempt;
use super::throttle::{self, FailureCounters};
use super::{AccountError, Accounts, CheckedUser, ClientInfo, SignedIn, address_key};
use crate::auth::session::{EndReason, SessionToken};
use crate::database::{self, User};
use crate::events::{Event, EventKind};
use crate::limits::Decision;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::settings::{Identity, Reloadable};
use crate::store::{CreateOutcome, InitialRefreshToken};
use crate::telemetry::metrics::LimitOutcome;

pub(super) use new_session::mint_access_token;

/// Credentials of a sign-in.
pub struct Credentials<'a> {
    /// Email or username, as typed.
    pub login: &'a str,
    pub password: &'a str,
    /// The session of the browser's cookie; replaced if it is the same user's.
    pub previous_session: Option<SessionToken>,
}

/// A claimed user, and the password to verify.
pub(super) struct PasswordCheck<'a> {
    /// `None` if there is no such user, which is not disclosed.
    pub(super) user: Option<User>,
    pub(super) password: &'a str,
    /// Counters that a failure is counted in.
    pub(super) counters: &'a [FailureCounters],
    pub(super) ip: IpAddr,
}

impl Accounts {
    /// Signs a user in. An unknown name, a wrong password and a disabled user are one refusal,
    /// after the same work. The limits to report to the client are added to `limits`, whatever the
    /// outcome.
    ///
    /// # Errors
    /// Every [`AccountError`].
    pub async fn sign_in(
        &self,
        settings: &Reloadable,
        credentials: Credentials<'_>,
        client_info: &ClientInfo,
        limits: &mut Vec<Decision>,
    ) -> Result<SignedIn, AccountError> {
        normalize::check_sign_in_password(credentials.password)
            .map_err(|problem| Rejection::invalid_field("password", problem))?;
        self.admit_attempt(&settings.identity, client_info.ip, limits)
            .await?;
        let user = self
            .authenticate(&settings.identity, &credentials, client_info, limits)
            .await?;
        let cost = settings.identity.passwords.cost;
        let user = self
            .rehash_if_outdated(user, credentials.password, cost)
            .await?;
        self.complete_sign_in(settings, user, credentials.previous_session, client_info)
            .await
    }

    /// Creates a user, and signs them in; `previous` and `limits` are as in [`Accounts::sign_in`].
    ///
    /// # Errors
    /// Every [`AccountError`].
    pub async fn register(
        &self,
        settings: &Reloadable,
        new: CheckedUser,
        previous: Option<SessionToken>,
        client_info: &ClientInfo,
        limits: &mut Vec<Decision>,
    ) -> Result<SignedIn, AccountError> {
        self.admit_attempt(&settings.identity, client_info.ip, limits)
            .await?;
        let user = self.insert_user(new).await?;
        self.events.record(
            Event::new(EventKind::Registered)
                .user(&user.id)
                .ip(client_info.ip),
        );
        self.complete_sign_in(settings, user, previous, client_info)
            .await
    }

    /// Counts an attempt to sign in by its address.
    pub(super) async fn admit_attempt(
        &self,
        rules: &Identity,
        ip: IpAddr,
        limits: &mut Vec<Decision>,
    ) -> Result<(), AccountError> {
        self.flood_guard.check(ip).map_err(|wait| Rejection {
            retry_after: Some(wait),
            ..Refusal::RateLimited.into()
        })?;
        let alone = self.sessions.is_durable();
        let decisions = throttle::charge_address(&self.store, rules, ip, alone).await?;
        if self.record_decisions(decisions, limits) {
            return Ok(());
        }
        self.events
            .record(Event::new(EventKind::SignInLimited).ip(ip));
        Err(Refusal::RateLimited.into())
    }

    /// Counts decisions, keeps those to report to the client, and returns whether all allow the
    /// attempt.
    pub(super) fn record_decisions(
        &self,
        decisions: Vec<Decision>,
        limits: &mut Vec<Decision>,
    ) -> bool {
        let admitted = decisions.iter().all(|decision| decision.allowed);
        for decision in decisions {
            let outcome = match (decision.degraded, decision.allowed) {
                (true, _) => LimitOutcome::Degraded,
                (false, false) => LimitOutcome::Limited,
                (false, true) => LimitOutcome::Allowed,
            };
            self.metrics
                .count_limit_decision(&decision.limit.name, outcome);
            if throttle::is_reported(&decision) {
                limits.push(decision);
            }
        }
        admitted
    }

    /// Finds the user with this name and password. While the store is unavailable nothing is
    /// compared, unless sessions work without it: then this process counts.
    async fn authenticate(
        &self,
        rules: &Identity,
        credentials: &Credentials<'_>,
        client_info: &ClientInfo,
        limits: &mut Vec<Decision>,
    ) -> Result<User, AccountError> {
        let login = LoginName::parse(credentials.login);
        let ip = client_info.ip;
        let user = self.find_user(&login).await?;
        let id = user.as_ref().map(|user| user.id.as_str());
        let known_here = self
            .database
            .has_address(id.unwrap_or(login.canonical()), &address_key(ip))
            .await?;
        let slot = self.passwords.acquire_sign_in_slot(known_here).await?;
        let failures = FailureCounters::for_login(&login, id, ip, known_here, rules);
        let claim = PasswordCheck {
            user,
            password: credentials.password,
            counters: &failures,
            ip,
        };
        self.verify_password(rules, slot, claim, limits).await
    }

    /// Compares the password with that of the claimed account, unless there were too many failures
    /// before or during the comparison.
    pub(super) async fn verify_password(
        &self,
        rules: &Identity,
        slot: HashSlot,
        claim: PasswordCheck<'_>,
        limits: &mut Vec<Decision>,
    ) -> Result<User, AccountError> {
        let PasswordCheck { user, ip, .. } = claim;
        let attempt = SignInAttempt {
            counters: claim.counters,
            user: user.as_ref().map(|user| &*user.id),
            ip,
        };
        self.check_failures(&attempt, limits).await?;
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
        let cost = rules.passwords.cost;
        let (slot, right) = self
            .passwords
            .verify(slot, claim.password, hash, cost)
            .await?;
        let wrong = match &user {
            None => Some(Reason::UnknownUser),
            Some(_) if !right => Some(Reason::WrongPassword),
            Some(user) if user.disabled => Some(Reason::UserDisabled),
            Some(_) => None,
        };
        let outcome = self.finish_attempt(&attempt, wrong, limits).await;
        drop(slot);
        outcome?;
        user.ok_or(Refusal::InvalidCredentials.into())
    }

    async fn find_user(&self, login: &LoginName) -> Result<Option<User>, database::Error> {
        match login {
            LoginName::Email(email) => self.database.user_by_email(email).await,
            LoginName::Username(name) => self.database.user_by_username(name).await,
        }
    }

    /// Opens a session for a user whose identity is proven.
    async fn complete_sign_in(
        &self,
        settings: &Reloadable,
        user: User,
        previous: Option<SessionToken>,
        client_info: &ClientInfo,
    ) -> Result<SignedIn, AccountError> {
        self.end_previous_session(&user, previous, settings.sessions.idle_timeout)
            .await?;
        let signed_in = self
            .sign_in_without_password(settings, user, client_info)
            .await?;
        let user = &signed_in.user;
        let now = signed_in.session.session.created_at;
        let address = address_key(client_info.ip);
        let (remembered, ()) = tokio::join!(
            self.database.record_address(&user.id, &address, now),
            self.record_device(user, client_info, now),
        );
        if let Err(error) = remembered {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a known address could not be recorded"
            );
        }
        self.report_sign_in(&signed_in, client_info);
        Ok(signed_in)
    }

    pub(super) fn report_sign_in(&self, signed_in: &SignedIn, client_info: &ClientInfo) {
        let session = &signed_in.session.session;
        let event = Event::new(EventKind::SignIn)
            .user(&signed_in.user.id)
            .session(session.id)
            .ip(client_info.ip);
        self.events.record(match &session.provider {
            Some(sign_in) => event.provider(&sign_in.provider),
            None => event,
        });
    }

    /// Ends the previous session of the browser if it belongs to the same user. One that has
    /// already ended is ended again, because an earlier attempt may not have been confirmed.
    pub(super) async fn end_previous_session(
        &self,
        user: &User,
        previous: Option<SessionToken>,
        idle: Option<Duration>,
    ) -> Result<(), AccountError> {
        let Some(previous) = previous else {
            return Ok(());
        };
        let Some(entry) = self.sessions.find(previous.id()).await? else {
            return Ok(());
        };
        if entry.session.user == user.id {
            self.end_session(&entry.session, EndReason::Replaced, None, idle)
                .await?;
        }
        Ok(())
    }

    /// Signs a user in without a password.
    ///
    /// # Errors
    /// Store, token, `SESSION_LIMIT_REACHED`, and `INVALID_CREDENTIALS` for a user disabled in the
    /// meantime.
    pub async fn sign_in_without_password(
        &self,
        settings: &Reloadable,
        user: User,
        client_info: &ClientInfo,
    ) -> Result<SignedIn, AccountError> {
        let origin = SessionOrigin::Local;
        self.open_user_session(settings, user, origin, client_info)
            .await
    }

    /// Opens a session for a user of the database, unless the user changes in the meantime.
    ///
    /// # Errors
    /// As [`Accounts::sign_in_without_password`]; `SIGN_IN_REFUSED` where the user signs in at a
    /// provider.
    pub(super) async fn open_user_session(
        &self,
        settings: &Reloadable,
        user: User,
        origin: SessionOrigin,
        client_info: &ClientInfo,
    ) -> Result<SignedIn, AccountError> {
        let signed_in = self
            .open_session(settings, user, origin, client_info)
            .await?;
        match self.confirm_user_unchanged(&signed_in).await {
            Ok(()) => Ok(signed_in),
            // The session has ended.
            Err(refused @ AccountError::Rejected(_)) => Err(refused),
            Err(error) => {
                self.abandon(&signed_in.session.session);
                Err(error)
            }
        }
    }

    /// Opens a session for a user.
    pub(super) async fn open_session(
        &self,
        settings: &Reloadable,
        user: User,
        origin: SessionOrigin,
        client_info: &ClientInfo,
    ) -> Result<SignedIn, AccountError> {
        check_user_id(settings, &user, &origin)?;
        let now = self.sessions.now().await?;
        let token = SessionToken::random();
        let session = new_session(settings, &user, &token, &origin, client_info, now);
        let refresh = RefreshToken::first(&self.refresh_key(settings)?, session.id);
        let access_token = mint_access_token(settings, &session)?;
        let grant = InitialRefreshToken {
            hash: refresh.hash(),
            until: refresh_expiry(settings, &session, now),
        };
        let created = self
            .sessions
            .create(&session, grant, &settings.sessions)
            .await;
        let created = created.inspect_err(|_| self.abandon(&session));
        let CreateOutcome::Created { evicted } = created? else {
            return Err(Refusal::SessionLimitReached.into());
        };
        for id in evicted {
            self.report_end(&user.id, id, EndReason::Evicted, Some(client_info.ip));
        }
        self.confirm_not_logged_out(&session, &origin).await?;
        Ok(SignedIn {
            user,
            session: session_entry(session, client_info),
            session_token: Some(token),
            access_token,
            expires_in: settings.tokens.access_ttl,
            refresh_token: refresh.expose(),
        })
    }
}
