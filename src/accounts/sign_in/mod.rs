//! Registering and signing in.

pub(super) mod by_backend;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::attempts::{self, Failures};
use super::names::{self, Login};
use super::passwords::Turn;
use super::refresh_token::RefreshToken;
use super::trial::Trial;
use super::{Accounts, CheckedUser, Failure, SignedIn, Visitor, address_key, invalid};
use crate::auth::session::{EndReason, Millis, Session, SessionToken};
use crate::auth::token::Minting;
use crate::directory::{self, User};
use crate::events::{Event, Kind};
use crate::limits::Decision;
use crate::refusal::Refusal;
use crate::settings::{Identity, Live};
use crate::store::{Entry, Grant};

/// What somebody signs in with.
pub struct Credentials<'a> {
    /// Email or username, as typed.
    pub login: &'a str,
    pub password: &'a str,
    /// The session that the browser held until now; of the same user, it is replaced.
    pub held: Option<SessionToken>,
}

/// A user that a client claims to be, and the password that is to prove it.
pub(super) struct Claim<'a> {
    /// `None`: there is no such user, which is not disclosed.
    pub(super) user: Option<User>,
    pub(super) password: &'a str,
    /// The counters that a failure counts in.
    pub(super) failures: &'a [Failures],
    pub(super) ip: IpAddr,
}

impl Accounts {
    /// Signs somebody in. An unknown name, a wrong password and a disabled user are one refusal,
    /// after the same work. The limits that the client is to be told of are added to `limits`,
    /// however it ends.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn sign_in(
        &self,
        live: &Live,
        credentials: Credentials<'_>,
        visitor: &Visitor,
        limits: &mut Vec<Decision>,
    ) -> Result<SignedIn, Failure> {
        names::typed_password(credentials.password)
            .map_err(|problem| invalid("password", problem))?;
        self.admit_attempt(&live.identity, visitor, limits).await?;
        let user = self
            .authenticate(&live.identity, &credentials, visitor, limits)
            .await?;
        let cost = live.identity.passwords.cost;
        let user = self.strengthen(user, credentials.password, cost).await?;
        self.admit_user(live, user, credentials.held, visitor).await
    }

    /// Creates a user, and signs them in; `held` and `limits` are as in [`Accounts::sign_in`].
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn register(
        &self,
        live: &Live,
        new: CheckedUser,
        held: Option<SessionToken>,
        visitor: &Visitor,
        limits: &mut Vec<Decision>,
    ) -> Result<SignedIn, Failure> {
        self.admit_attempt(&live.identity, visitor, limits).await?;
        let user = self.insert_user(new).await?;
        self.events
            .record(Event::new(Kind::Registered).user(&user.id).ip(visitor.ip));
        self.admit_user(live, user, held, visitor).await
    }

    async fn admit_attempt(
        &self,
        rules: &Identity,
        visitor: &Visitor,
        limits: &mut Vec<Decision>,
    ) -> Result<(), Failure> {
        self.attempts.guard(visitor.ip).map_err(Failure::TooFast)?;
        let (ip, alone) = (visitor.ip, self.is_durable());
        let decisions = attempts::charge_address(&self.store, rules, ip, alone).await?;
        if self.admitted(decisions, limits) {
            return Ok(());
        }
        self.events
            .record(Event::new(Kind::SignInLimited).ip(visitor.ip));
        Err(Failure::Limited)
    }

    /// Counts decisions, keeps those that the client is told of, and says whether all are yes.
    pub(super) fn admitted(&self, decisions: Vec<Decision>, limits: &mut Vec<Decision>) -> bool {
        let admitted = decisions.iter().all(|decision| decision.allowed);
        for decision in decisions {
            let outcome = match (decision.degraded, decision.allowed) {
                (true, _) => "degraded",
                (false, false) => "limited",
                (false, true) => "allowed",
            };
            let labels = [&*decision.limit.name, outcome];
            self.metrics.ratelimit.with_label_values(&labels).inc();
            if attempts::is_told(&decision) {
                limits.push(decision);
            }
        }
        admitted
    }

    /// Finds the user whose name and password these are. While the store does not answer nothing is
    /// compared, but where sessions go on without it: there this process counts.
    async fn authenticate(
        &self,
        rules: &Identity,
        credentials: &Credentials<'_>,
        visitor: &Visitor,
        limits: &mut Vec<Decision>,
    ) -> Result<User, Failure> {
        let login = Login::read(credentials.login);
        let ip = visitor.ip;
        let user = self.find(&login).await?;
        let id = user.as_ref().map(|user| user.id.as_str());
        let known_here = self
            .directory
            .knows_address(id.unwrap_or(login.canonical()), &address_key(ip))
            .await?;
        let turn = self.passwords.turn_of(known_here).await?;
        let failures = Failures::claimed(&login, id, ip, known_here, rules);
        let claim = Claim {
            user,
            password: credentials.password,
            failures: &failures,
            ip,
        };
        self.prove(rules, turn, claim, limits).await
    }

    /// Compares a password with the one of the account that is claimed, unless there were too many
    /// failures, before or meanwhile.
    pub(super) async fn prove(
        &self,
        rules: &Identity,
        turn: Turn,
        claim: Claim<'_>,
        limits: &mut Vec<Decision>,
    ) -> Result<User, Failure> {
        let Claim { user, ip, .. } = claim;
        let trial = Trial {
            failures: claim.failures,
            user: user.as_ref().map(|user| &*user.id),
            ip,
        };
        self.look(&trial, limits).await?;
        let hash = user.as_ref().map(|user| user.password_hash.as_str());
        let cost = rules.passwords.cost;
        let (turn, right) = self
            .passwords
            .verify(turn, claim.password, hash, cost)
            .await?;
        let wrong = match &user {
            None => Some("no user has this name"),
            Some(_) if !right => Some("the password is wrong"),
            Some(user) if user.disabled => Some("the user is disabled"),
            Some(_) => None,
        };
        let judged = self.judge(&trial, wrong, limits).await;
        drop(turn);
        judged?;
        user.ok_or(Refusal::InvalidCredentials.into())
    }

    async fn find(&self, login: &Login) -> Result<Option<User>, directory::Error> {
        match login {
            Login::Email(email) => self.directory.user_by_email(email).await,
            Login::Username(name) => self.directory.user_by_username(name).await,
        }
    }

    /// Opens a session for somebody whose identity is proven.
    async fn admit_user(
        &self,
        live: &Live,
        user: User,
        held: Option<SessionToken>,
        visitor: &Visitor,
    ) -> Result<SignedIn, Failure> {
        self.replace(&user, held, live.sessions.idle_timeout)
            .await?;
        let signed_in = self.sign_in_unasked(live, user, visitor).await?;
        let user = &signed_in.user;
        let now = signed_in.session.session.created_at;
        let address = address_key(visitor.ip);
        let (remembered, ()) = tokio::join!(
            self.directory.remember_address(&user.id, &address, now),
            self.notice_device(user, visitor, now),
        );
        if let Err(error) = remembered {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an address is not remembered"
            );
        }
        self.report_sign_in(&signed_in, visitor);
        Ok(signed_in)
    }

    fn report_sign_in(&self, signed_in: &SignedIn, visitor: &Visitor) {
        self.events.record(
            Event::new(Kind::SignIn)
                .user(&signed_in.user.id)
                .session(signed_in.session.session.id)
                .ip(visitor.ip),
        );
    }

    /// Ends the session that the browser held, if it is the same user's. One that has ended already is
    /// ended again: an earlier attempt may not have been able to ensure it.
    async fn replace(
        &self,
        user: &User,
        held: Option<SessionToken>,
        idle: Option<Duration>,
    ) -> Result<(), Failure> {
        let Some(held) = held else { return Ok(()) };
        let Some(entry) = self.session(held.id()).await? else {
            return Ok(());
        };
        if entry.session.user == user.id {
            self.end_session(&entry.session, EndReason::Replaced, None, idle)
                .await?;
        }
        Ok(())
    }

    /// Signs a user in without asking for a password.
    ///
    /// # Errors
    /// Store, token, `SESSION_LIMIT_REACHED`, and `INVALID_CREDENTIALS` for somebody who was disabled
    /// meanwhile.
    pub async fn sign_in_unasked(
        &self,
        live: &Live,
        user: User,
        visitor: &Visitor,
    ) -> Result<SignedIn, Failure> {
        let signed_in = self.open_session(live, user, visitor).await?;
        let confirmed = self.confirm(&signed_in).await;
        if let Err(failure) = &confirmed {
            self.abandon(&signed_in.session.session, failure);
        }
        confirmed.map(|()| signed_in)
    }

    /// Opens a session for a user.
    pub(super) async fn open_session(
        &self,
        live: &Live,
        user: User,
        visitor: &Visitor,
    ) -> Result<SignedIn, Failure> {
        let now = self.now().await?;
        let token = SessionToken::random();
        let session = new_session(live, &user, &token, visitor, now);
        let refresh = RefreshToken::first(&self.refresh_key(live)?, session.id);
        let access_token = mint(live, &session)?;
        let grant = Grant {
            hash: refresh.hash(),
            until: refresh_end(live, &session, now),
        };
        let entered = self.enter(live, &session, grant).await;
        if let Err(failure) = &entered {
            self.abandon(&session, failure);
        }
        for id in entered? {
            self.ended(&user.id, id, EndReason::Evicted, Some(visitor.ip));
        }
        Ok(SignedIn {
            user,
            session: entry(session, visitor),
            session_token: Some(token),
            access_token,
            expires_in: live.tokens.access_ttl,
            refresh_token: refresh.expose(),
        })
    }

    /// Looks whether the user is still who they were while the session was opened: a change that
    /// came in between did not see the session.
    async fn confirm(&self, signed_in: &SignedIn) -> Result<(), Failure> {
        let before = &signed_in.user;
        let after = self.directory.user(&before.id).await?;
        let session = &signed_in.session.session;
        match after {
            Some(after) if after == *before => Ok(()),
            Some(after) if !after.disabled && after.password_hash == before.password_hash => {
                self.apply_identity(&after.id).await
            }
            _ => {
                self.end_session(session, EndReason::UserDisabled, None, None)
                    .await?;
                Err(Refusal::InvalidCredentials.into())
            }
        }
    }
}

fn new_session(
    live: &Live,
    user: &User,
    token: &SessionToken,
    visitor: &Visitor,
    now: Millis,
) -> Session {
    Session {
        id: token.id(),
        user: user.id.clone(),
        email: user.email.clone(),
        username: user.username.as_deref().map(Into::into),
        name: user.name.clone(),
        roles: user.roles.as_slice().into(),
        scopes: user.scopes.as_slice().into(),
        created_at: now,
        expires_at: now.saturating_add(live.sessions.ttl.as_millis() as Millis),
        ip: visitor.ip,
        user_agent: visitor.user_agent.as_str().into(),
        device: visitor.device.clone(),
        ended: None,
        data: crate::auth::session::no_data(),
        revision: 0,
    }
}

fn entry(session: Session, visitor: &Visitor) -> Entry {
    let activity = crate::auth::session::Activity {
        last_access: session.created_at,
        request_count: 0,
        ip_addresses: vec![visitor.ip],
        live_connections: 0,
    };
    Entry { session, activity }
}

/// Signs an access token for a session.
///
/// Tokens go by the gateway's clock, by which they are verified; the store's may differ by more than
/// the leeway.
pub(super) fn mint(live: &Live, session: &Session) -> Result<String, Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as Millis;
    let token_id = Uuid::new_v4().to_string();
    let minting = Minting {
        user: &session.user,
        session: session.id,
        token_id: &token_id,
        email: Some(&session.email),
    };
    Ok(live.tokens.mint(&minting, now)?)
}

/// When a refresh token made now ends: never after its session.
fn refresh_end(live: &Live, session: &Session, now: Millis) -> Millis {
    let ttl = live.tokens.refresh_ttl.as_millis() as Millis;
    now.saturating_add(ttl).min(session.expires_at)
}
