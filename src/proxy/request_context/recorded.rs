//! What is recorded of a request: its caller for the log, and uses of sessions and API keys.

use super::RequestContext;
use crate::auth::principal::Principal;
use crate::pipeline::admission::Identity;
use crate::proxy::retry::Failure;
use crate::rejection::Rejection;

impl RequestContext {
    /// Counts a use of the session or the API key; it is written later.
    pub(in crate::proxy) fn record_session_use(&self, identity: &Identity) {
        let Some(origin) = &self.client_origin else {
            return;
        };
        let sessions = &self.worker.admission.sessions;
        if let Some(session) = identity.uses.get() {
            return sessions.record_request_of(session, identity.confirmed_at, origin.ip);
        }
        match &identity.principal {
            Principal::Session(session) => {
                sessions.record_request(session.id, identity.confirmed_at, origin.ip);
            }
            Principal::ApiKey(used) => {
                let id = used.presented.id;
                sessions.record_api_key_request(id, identity.confirmed_at, origin.ip);
            }
            Principal::Token(_) => {}
        }
    }

    /// Records for the log why the request was rejected, and whose it was.
    pub(in crate::proxy) fn record_rejection(&mut self, rejection: &mut Rejection) {
        self.reason = rejection.reason.or(self.reason);
        self.credential = rejection.credential.or(self.credential);
        self.caller = rejection.caller.take().or_else(|| self.caller.take());
        if let Some(mut details) = rejection.take_details() {
            self.user = details.user.take().or_else(|| self.user.take());
            self.session = details.session.or(self.session);
            self.api_key = details.api_key.or(self.api_key);
            self.limit = details.limit.take();
            self.grounds = Some(details);
        }
        if let Some(violated) = rejection.violated_limits_text() {
            self.limit = Some(violated);
        }
    }

    /// Records why the request failed: the refusal that its client receives, and the reason.
    pub(in crate::proxy) fn record_failure(&mut self, failure: Failure) {
        self.refusal = failure.refusal().or(self.refusal);
        self.reason = failure.reason().or(self.reason);
    }

    /// Records the caller of the request, for the log.
    pub(in crate::proxy) fn record_identity(&mut self, identity: &Identity) {
        self.caller = Some(identity.principal.clone());
        self.credential = Some(identity.credential_kind.credential_type());
        self.authenticated = true;
    }
}
