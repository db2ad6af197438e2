//! The one context that Pingora passes from hook to hook: the stages of a request.

use std::sync::Arc;

use pingora::{Error, ErrorType};

use crate::limits::Decision;
use crate::proxy::request_context::{Admitted, Arrival, RequestContext};
use crate::proxy::worker::Worker;

/// A request, and its admission once it may go to an upstream.
pub(super) struct Context {
    /// Dropped first: a request that is over is not registered any more when it is logged.
    admitted: Option<Admitted>,
    pub(super) request: RequestContext,
}

impl Context {
    pub(super) fn new(arrival: Arrival, worker: Arc<Worker>) -> Context {
        Context {
            admitted: None,
            request: RequestContext::new(arrival, worker),
        }
    }

    /// Keeps the admission, if there is one. Returns whether the request is served already.
    pub(super) fn settle(&mut self, admitted: Option<Admitted>) -> bool {
        self.admitted = admitted;
        self.admitted.is_none()
    }

    /// The request and its admission, for the hooks that run after the decision.
    ///
    /// # Errors
    /// The request was not admitted. Pingora calls none of these hooks before the decision.
    pub(super) fn admitted(&mut self) -> pingora::Result<(&mut RequestContext, &mut Admitted)> {
        match &mut self.admitted {
            Some(admitted) => Ok((&mut self.request, admitted)),
            None => Err(Error::new(ErrorType::HTTPStatus(500))),
        }
    }

    /// The limits that were evaluated for the request's admission.
    pub(super) fn decisions(&self) -> Vec<Decision> {
        let admitted = self.admitted.as_ref();
        admitted.map_or_else(Vec::new, |admitted| admitted.permit.decisions.clone())
    }
}
