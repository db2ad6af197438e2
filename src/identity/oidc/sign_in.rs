//! Sign-in at a provider: the start of a flow, and its end in a session.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;
use secrecy::ExposeSecret;

use super::callback::{CallbackResponse, CallbackResult, ResponseContent, ResponseParameters};
use super::flow::{self, Flow, FlowCookieRules, FlowRequest};
use super::kept_tokens::check_tokens_size;
use super::proven_identity::{ProvenIdentity, not_before_max_age};
use super::{AuthorizationRequest, ProviderClient, ProviderUser, is_allowed};
use crate::auth::session::SessionToken;
use crate::auth::token::SignError;
use crate::auth::token::provider_token::IdTokenRequest;
use crate::clock;
use crate::database::{FirstSignIn, User};
use crate::events::{Event, EventKind};
use crate::identity::sign_in::SessionOrigin;
use crate::identity::{AccountError, Accounts, ClientInfo, SignedIn};
use crate::limits::Decision;
use crate::rejection::{CallbackFault, Reason, Refusal, Rejection};
use crate::sessions::SignInStart;
use crate::settings::Reloadable;
use crate::settings::provider::{Provider, UserStorage};

/// A sign-in to start.
pub struct SignInRequest {
    pub flow: FlowRequest,
    pub prompt: Option<String>,
    pub login_hint: Option<String>,
}

/// A sign-in that has started.
pub struct StartedSignIn {
    /// Where the browser goes.
    pub location: String,
    /// Holds the flow.
    pub cookie: HeaderValue,
}

/// A browser that has returned from a provider.
pub struct SignInCallback {
    pub response: Result<CallbackResponse, CallbackFault>,
    /// The flow of the browser that has the state of the response.
    pub flow: Result<Flow, CallbackFault>,
    /// The session of the browser's cookie; replaced if it is the same user's.
    pub previous_session: Option<SessionToken>,
}

/// What a flow has led to.
pub enum FinishedFlow {
    SignedIn(Box<SignedIn>),
    /// The identity belongs to the user of the browser's session, which stays as it is.
    Linked,
}

impl Accounts {
    /// Starts a sign-in at a provider. Nothing is stored but the count of the attempt, whose limits
    /// are added to `limits`.
    ///
    /// # Errors
    /// `RATE_LIMITED`, or a fault of the provider.
    pub async fn start_at_provider(
        &self,
        settings: &Reloadable,
        provider: &ProviderClient,
        rules: &FlowCookieRules,
        start: SignInRequest,
        ip: IpAddr,
        limits: &mut Vec<Decision>,
    ) -> Result<StartedSignIn, AccountError> {
        self.admit_attempt(&settings.identity, ip, limits).await?;
        let no_key = AccountError::Token(SignError::NoSigningKey);
        let keys = flow::keys(&settings.tokens).ok_or(no_key)?;
        let mut request = start.flow;
        request.max_age = provider.effective_max_age(request.max_age);
        let flow = Flow::start(&provider.settings().name, request, clock::unix_millis());
        let acr = flow.request.acr.join(" ");
        let location = provider
            .authorization_url(&AuthorizationRequest {
                redirect_uri: &flow.request.redirect_uri,
                state: flow.state.expose(),
                nonce: flow.nonce.expose(),
                code_challenge: &flow.challenge(),
                prompt: start.prompt.as_deref(),
                login_hint: start.login_hint.as_deref(),
                acr_values: Some(acr.as_str()).filter(|acr| !acr.is_empty()),
                max_age: flow.request.max_age,
            })
            .await
            .inspect_err(|fault| self.report_failure(provider.settings(), *fault, ip))?;
        Ok(StartedSignIn {
            location: location.into(),
            cookie: rules.set(&flow, &keys).ok_or(Refusal::Internal)?,
        })
    }

    /// Finishes a sign-in at a provider; `limits` is as at the start.
    ///
    /// # Errors
    /// Every fault of a callback, and those of opening a session.
    pub async fn finish_at_provider(
        &self,
        settings: &Reloadable,
        provider: &ProviderClient,
        callback: SignInCallback,
        client_info: &ClientInfo,
        limits: &mut Vec<Decision>,
    ) -> Result<FinishedFlow, AccountError> {
        let ip = client_info.ip;
        self.admit_attempt(&settings.identity, ip, limits).await?;
        // The attempt could only be counted here.
        let is_store_down = limits.iter().any(|decision| decision.degraded);
        let finished = self
            .finish_flow(settings, provider, callback, client_info, is_store_down)
            .await;
        if let Err(AccountError::Rejected(Rejection {
            reason: Some(Reason::Callback(fault)),
            ..
        })) = &finished
        {
            self.report_failure(provider.settings(), *fault, ip);
        }
        finished
    }

    async fn finish_flow(
        &self,
        settings: &Reloadable,
        provider: &ProviderClient,
        callback: SignInCallback,
        client_info: &ClientInfo,
        is_store_down: bool,
    ) -> Result<FinishedFlow, AccountError> {
        let response = callback.response?;
        let flow = callback.flow?;
        let browser = callback.previous_session.as_ref();
        let linking_user = match flow.request.link_to {
            Some(session) => {
                let provider = provider.settings();
                let user = self.linking_user(settings, provider, session, browser);
                Some(user.await?)
            }
            None => None,
        };
        let code = read_code(provider, settings, &flow, response).await?;
        // Without the store there would be no session, and the code would be spent.
        let start = self.sessions.begin_provider_sign_in(is_store_down).await?;
        let name = &*provider.settings().name;
        if !self.sessions.redeem_code(name, &code, start).await? {
            return Err(CallbackFault::CodeRepeated.into());
        }
        let mut proven = provider.redeem_for_user(settings, &flow, &code).await?;
        let sign_in = &mut proven.sign_in;
        sign_in.authenticated_at = not_before_max_age(
            sign_in.authenticated_at,
            flow.request.max_age,
            clock::unix_millis(),
        );
        let provider = provider.settings();
        if !is_allowed(&provider.allow, &proven.user) {
            return Err(CallbackFault::NotAllowed.into());
        }
        if let Some(user) = linking_user {
            self.link_proven(provider, &user, &proven, client_info.ip)
                .await?;
            return Ok(FinishedFlow::Linked);
        }
        let previous = callback.previous_session;
        let signed_in =
            self.sign_in_proven(settings, provider, proven, start, previous, client_info);
        Ok(FinishedFlow::SignedIn(signed_in.await?))
    }

    /// Opens a session for a user whose identity a provider has proven.
    async fn sign_in_proven(
        &self,
        settings: &Reloadable,
        provider: &Provider,
        proven: ProvenIdentity,
        start: SignInStart,
        previous: Option<SessionToken>,
        client_info: &ClientInfo,
    ) -> Result<Box<SignedIn>, AccountError> {
        let user = self
            .user_at_provider(provider, &proven, client_info.ip)
            .await?;
        check_tokens_size(provider, &proven.tokens)?;
        let origin = SessionOrigin::Provider {
            sign_in: proven.sign_in.into(),
            start,
            ttl: provider.session_ttl,
        };
        let idle = settings.sessions.idle_timeout;
        self.end_previous_session(&user, previous, idle).await?;
        let signed_in = match provider.users {
            UserStorage::External { .. } => {
                self.open_session(settings, user, origin, client_info).await
            }
            UserStorage::Database { .. } => {
                self.open_user_session(settings, user, origin, client_info)
                    .await
            }
        };
        let signed_in = Box::new(signed_in?);
        let session = &signed_in.session.session;
        self.keep_tokens(
            settings,
            provider,
            session,
            &proven.tokens,
            proven.id_expires_at,
        )
        .await
        .inspect_err(|_| self.abandon(session))?;
        self.report_sign_in(&signed_in, client_info);
        Ok(signed_in)
    }

    /// The user of an identity: the provider's own, or a row of the database.
    async fn user_at_provider(
        &self,
        provider: &Provider,
        proven: &ProvenIdentity,
        ip: IpAddr,
    ) -> Result<User, AccountError> {
        let (create, link_by_email) = match &provider.users {
            UserStorage::External { prefix } => return Ok(external_user(prefix, &proven.user)),
            UserStorage::Database {
                create,
                link_by_email,
            } => (*create, *link_by_email),
        };
        let rules = FirstSignIn {
            create,
            link_by_email,
        };
        self.user_for_identity(proven.asserted(provider), rules, ip)
            .await
    }

    fn report_failure(&self, provider: &Provider, fault: CallbackFault, ip: IpAddr) {
        let event = Event::new(EventKind::SignInFailed).provider(&provider.name);
        self.events.record(event.reason(fault.as_str()).ip(ip));
    }
}

impl ProviderClient {
    /// Redeems a code, and verifies what the provider returns for it.
    async fn redeem_for_user(
        &self,
        settings: &Reloadable,
        flow: &Flow,
        code: &str,
    ) -> Result<ProvenIdentity, CallbackFault> {
        let (verifier, redirect_uri) = (flow.verifier.expose(), &flow.request.redirect_uri);
        let tokens = self.redeem(code, verifier, redirect_uri).await?;
        let id_token = match &tokens.id_token {
            Some(token) if self.settings().has_id_tokens() => {
                let request = IdTokenRequest {
                    nonce: Some(flow.nonce.expose()),
                    access_token: Some(tokens.access_token.expose_secret()),
                    max_age: flow.request.max_age.map(Duration::from_secs),
                    acr: &flow.request.acr,
                };
                let leeway = settings.tokens.leeway;
                let token = token.expose_secret();
                let now = clock::unix_millis();
                Some(self.verify_id_token(token, &request, leeway, now).await?)
            }
            _ if !flow.request.acr.is_empty() => return Err(CallbackFault::AcrUnmet),
            _ => None,
        };
        let user = self
            .read_user(&tokens.access_token, id_token.as_ref())
            .await?;
        Ok(ProvenIdentity::new(
            &self.settings().name,
            user,
            id_token,
            tokens,
        ))
    }
}

/// Verifies the parameters of a response, and returns the code.
async fn read_code(
    provider: &ProviderClient,
    settings: &Reloadable,
    flow: &Flow,
    response: CallbackResponse,
) -> Result<String, CallbackFault> {
    if !flow.state.matches(&response.state) {
        return Err(CallbackFault::StateUnknown);
    }
    let result = match response.content {
        ResponseContent::Parameters(ResponseParameters { iss, result }) => {
            provider.check_issuer(iss.as_deref()).await?;
            result
        }
        ResponseContent::Token { token, iss } => {
            // The token names its issuer itself; what is beside it must not name another.
            if iss.is_some() {
                provider.check_issuer(iss.as_deref()).await?;
            }
            let leeway = settings.tokens.leeway;
            let response = provider
                .verify_authorization_response(&token, leeway, clock::unix_millis())
                .await?;
            if !response
                .state
                .is_some_and(|state| flow.state.matches(&state))
            {
                return Err(CallbackFault::StateUnknown);
            }
            CallbackResult::of(response.code.as_deref(), response.error.as_deref())?
        }
    };
    match result {
        CallbackResult::Code(code) => Ok(code),
        CallbackResult::Failed(fault) => Err(fault),
    }
}

/// The user that a session is opened for, where no row keeps them.
pub(super) fn external_user(prefix: &str, user: &ProviderUser) -> User {
    User {
        id: format!("{prefix}{}", user.user_id),
        email: user.email.clone().unwrap_or_default(),
        username: None,
        name: user.name.clone(),
        password_hash: None,
        roles: user.roles.clone(),
        scopes: user.scopes.clone(),
        disabled: false,
        created_at: 0,
        updated_at: 0,
    }
}
