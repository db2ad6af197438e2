//! Responses to front proxies: whether a request may pass, and what its client receives if not.

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::error_body::ErrorFormat;
use super::{
    Content, FieldBuffer, LocalResponse, RejectedRequest, ResponseContext, clearing_headers, error,
    names_token_error, redirect_to_sign_in, sign_in, write_challenge,
};
use crate::pipeline::admission::Permit;
use crate::pipeline::assertions::Assertions;
use crate::pipeline::fields::Fields;
use crate::pipeline::header_fields::{FieldSink, HeaderError};
use crate::pipeline::own_field::{CACHE_CONTROL_NO_STORE, PORTCULLIS_CODE, PORTCULLIS_CODE_OK};
use crate::pipeline::upstream_request::{FrontProxyHead, RequestEdits};
use crate::rejection::Rejection;
use crate::settings::Reloadable;

/// A request that a front proxy may forward.
#[derive(Debug)]
pub struct AllowedRequest {
    permit: Permit,
    head: FrontProxyHead,
}

impl AllowedRequest {
    /// # Errors
    /// A value that no header can carry, or an assertion that cannot be signed.
    pub fn new(
        permit: Permit,
        fields: Fields<'_>,
        settings: &Reloadable,
        assertions: &Assertions,
    ) -> Result<AllowedRequest, HeaderError> {
        Ok(AllowedRequest {
            head: FrontProxyHead::new(&permit, fields, settings, assertions)?,
            permit,
        })
    }

    /// Writes the fields that the front proxy replaces in the request.
    pub fn write_request_fields(&self, settings: &Reloadable, sink: &mut dyn FieldSink) {
        self.head.write(&settings.identity_header_names, sink);
    }

    /// The changes to the request with these fields, by a front proxy that can remove some.
    pub fn request_edits(&self, fields: Fields<'_>, settings: &Reloadable) -> RequestEdits {
        self.head.edits(&self.permit, fields, settings)
    }

    /// Writes the fields for the client, which the front proxy adds to its response: the limits, and
    /// the cleared cookie.
    pub fn write_response_fields(&self, context: &ResponseContext<'_>, sink: &mut dyn FieldSink) {
        if let Some(limits) = context.limit_headers(&self.permit.decisions) {
            sink.add_limits(&limits, &|_| true);
        }
        if let Some(settings) = context.settings.filter(|_| self.permit.clear_cookie) {
            for (name, value) in clearing_headers(&settings.sessions.cookie) {
                sink.add(&name, &value);
            }
        }
    }

    /// Writes all fields, for a dialect whose front proxy selects what it uses.
    pub(super) fn write_fields(&self, context: &ResponseContext<'_>, sink: &mut dyn FieldSink) {
        sink.add_own(&PORTCULLIS_CODE_OK);
        sink.add_own(&CACHE_CONTROL_NO_STORE);
        if let Some(settings) = context.settings {
            self.write_request_fields(settings, sink);
        }
        self.write_response_fields(context, sink);
    }
}

impl LocalResponse {
    /// The response that lets a front proxy forward a request.
    pub fn allowed(request: AllowedRequest) -> LocalResponse {
        LocalResponse {
            status: StatusCode::OK,
            may_keep: true,
            is_trailers_only: false,
            headers: FieldBuffer::new(),
            content: Content::Allowed(request),
        }
    }

    /// Leaves out the body, for a front proxy that would drop it.
    pub fn leave_out_body(&mut self) {
        if let Content::Error(error) = &mut self.content {
            error.format = ErrorFormat::Bodiless;
        }
    }

    /// Adds a field.
    pub fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.headers.add(name, value);
    }
}

/// Responds to a front proxy with what the client of a rejected request receives. It is never the
/// response to a gRPC call, whose status is always 200.
pub(super) fn deny(rejection: Rejection, request: &RejectedRequest<'_>) -> LocalResponse {
    let refusal = rejection.refusal;
    let mut response = match sign_in::redirect_target(&rejection, request) {
        Some(location) => {
            let mut response = redirect_to_sign_in(&rejection, request, location);
            let names_error = names_token_error(refusal, request.head.fields);
            write_challenge(&rejection, names_error, &mut response.headers);
            response
        }
        None => error(rejection, request, None),
    };
    let code = refusal.code().as_bytes();
    response.headers.add_checked(&PORTCULLIS_CODE, code);
    response
}
