//! What is known of a request about which a front proxy queries.

use http::HeaderValue;

use super::RequestContext;
use super::text::RequestText;
use crate::forward_auth::{self, OriginalRequest};
use crate::pipeline::admission::Permit;
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{FieldKind, Fields};
use crate::settings::ListenerId;
use crate::settings::forward_auth::ForwardAuth;
use crate::telemetry::request_id::RequestId;

impl RequestContext {
    /// Whether a front proxy queries about the request.
    pub(in crate::proxy) fn is_query(&self) -> bool {
        self.arrival.peer.listener == ListenerId::ForwardAuth
    }

    /// The settings of the query, if it is one.
    pub(in crate::proxy) fn front_proxy(&self) -> Option<&ForwardAuth> {
        let settings = self.snapshot.settings.forward_auth.as_ref();
        settings.filter(|_| self.is_query())
    }

    /// Records a call that names no request yet, and its dialect by its path.
    pub(in crate::proxy) fn record_call(
        &mut self,
        call: RequestHead<'_>,
        host: Option<(&str, &str)>,
    ) {
        self.method = call.method.clone();
        self.text = RequestText::new(host, call.path);
        self.dialect = forward_auth::dialect_of(call.path);
        self.request_id = RequestId::keep_or_generate(call.fields.first(FieldKind::XRequestId));
    }

    /// Records the request that a call is about. It is never a gRPC call: a rejection of one has the
    /// status 200, by which a front proxy would let it pass.
    pub(in crate::proxy) fn record_original(
        &mut self,
        request: &mut OriginalRequest<'_>,
        fields: Fields<'_>,
    ) {
        let origin_header = fields.first(FieldKind::Origin);
        self.origin_header = origin_header.and_then(|it| HeaderValue::from_bytes(it).ok());
        self.method = std::mem::take(&mut request.method);
        self.text = RequestText::new(Some(request.host_and_name()), request.path);
        self.client_origin = Some(request.client.clone());
    }

    /// Counts the use of the permit's session. Its connections are the front proxy's.
    pub(in crate::proxy) fn record_allowed(&mut self, permit: &Permit) {
        self.identity.clone_from(&permit.identity);
        if let Some(identity) = &permit.identity {
            self.authenticated = true;
            self.credential = Some(identity.credential_kind.credential_type());
            self.record_session_use(identity);
        }
    }
}
