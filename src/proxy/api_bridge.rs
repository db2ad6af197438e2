//! Calls of the gateway's own endpoints, for every engine: an engine reads the body and writes the
//! response.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Version};

use super::local_response;
use super::request_context::{RequestContext, measure_wait};
use crate::api::{ApiResponse, Caller, IntrospectToken, ResponseInfo};
use crate::clock;
use crate::limits::Decision;
use crate::pipeline::EndpointCall;
use crate::pipeline::facts::{RequestFacts, RequestHead};
use crate::pipeline::fields::Fields;
use crate::pipeline::header_fields::FieldBuffer;
use crate::pipeline::local_response::{LocalResponse, clearing_headers, rejection_headers};
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::{self, CredentialUse};

/// Largest body in bytes that is read from any caller.
const MAX_BODY: usize = 64 * 1024;
/// How long the body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A call without its body: the original head, the path without the prefix, and the caller.
pub(super) struct ApiCall {
    request: http::Request<()>,
    /// Maximum length of the body; `None`: it is not read.
    pub max_body: Option<usize>,
    /// The rejection in place of which a sign-in starts.
    rejection: Option<Rejection>,
}

impl ApiCall {
    /// Identifies the caller, and builds the call of an endpoint.
    ///
    /// # Errors
    /// The target is not valid.
    pub(super) async fn prepare(
        ctx: &mut RequestContext,
        head: RequestHead<'_>,
        call: EndpointCall,
    ) -> Result<ApiCall, Refusal> {
        ctx.is_api_call = true;
        let below = &*call.path;
        let start = call.sign_in.map(|start| *start);
        let target = match start.as_ref().map(|start| &*start.query).or(head.query) {
            Some(query) => format!("{below}?{query}"),
            None => below.to_owned(),
        };
        let mut request = http::Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = target.parse().map_err(|_| Refusal::BadRequest)?;
        *request.headers_mut() = header_map_of(head.fields)?;
        let extensions = request.extensions_mut();
        if let Some(origin) = &ctx.client_origin {
            extensions.insert(origin.as_client(ctx.text.host().map(str::as_bytes)));
        }
        extensions.insert(Arc::clone(&ctx.snapshot));
        extensions.insert(ctx.request_id.clone());
        if below == endpoints::INTROSPECT
            && let Some(introspect) = introspect_token(ctx)
        {
            extensions.insert(introspect);
        }
        let credential = endpoints::credential_use(&ctx.method, below);
        let is_authenticated = credential != CredentialUse::Ignored
            && identify(ctx, head, credential, extensions).await;
        let most = endpoints::max_body_bytes(below);
        // An anonymous caller's large body is not read.
        let is_read = is_authenticated || most <= MAX_BODY;
        Ok(ApiCall {
            request,
            max_body: is_read.then_some(most),
            rejection: start.map(|start| start.rejection),
        })
    }

    /// Calls the endpoint with its body, and records the outcome.
    pub(super) async fn run(
        self,
        ctx: &mut RequestContext,
        head: RequestHead<'_>,
        body: Bytes,
    ) -> LocalResponse {
        let response = ctx.worker.api.call(self.request.map(|()| body)).await;
        let replaced = self
            .rejection
            .map(|rejection| Replaced::record(ctx, rejection));
        let replaced = replaced.unwrap_or_default();
        let (status, fields, body, info) = match response {
            ApiResponse::Rejected(mut rejection, fields) => {
                rejection.clear_cookie |= replaced.clear_cookie;
                rejection.decisions.extend(replaced.decisions);
                return local_response::reject(ctx, head, rejection, Some(&fields));
            }
            ApiResponse::Complete {
                status,
                headers,
                body,
                mut info,
            } => {
                info.clear_cookie |= replaced.clear_cookie;
                info.limits.extend(replaced.decisions);
                (status, headers, body, info)
            }
        };
        let mut headers: FieldBuffer = fields
            .iter()
            .filter(|(name, _)| ctx.method == Method::HEAD || **name != header::CONTENT_LENGTH)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        headers.extend(info_headers(ctx, head, info));
        LocalResponse::new(status, headers, body)
    }
}

/// What the response to a rejected request has, where a sign-in starts in its place.
#[derive(Default)]
struct Replaced {
    clear_cookie: bool,
    decisions: Vec<Decision>,
}

impl Replaced {
    /// Records the rejection for the log.
    fn record(ctx: &mut RequestContext, mut rejection: Rejection) -> Replaced {
        ctx.refusal = Some(rejection.refusal);
        ctx.record_rejection(&mut rejection);
        Replaced {
            clear_cookie: rejection.clear_cookie,
            decisions: rejection.decisions,
        }
    }
}

/// The fields as the router reads them.
///
/// # Errors
/// A field that the router cannot hold.
fn header_map_of(fields: Fields<'_>) -> Result<HeaderMap, Refusal> {
    let mut map = HeaderMap::with_capacity(fields.count());
    for (name, value) in fields.pairs() {
        let name = HeaderName::from_bytes(name).map_err(|_| Refusal::BadRequest)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Refusal::BadRequest)?;
        map.append(name, value);
    }
    Ok(map)
}

/// Records the outcome of a response with a body of its own, and returns the headers that it needs.
fn info_headers(
    ctx: &mut RequestContext,
    head: RequestHead<'_>,
    info: ResponseInfo,
) -> FieldBuffer {
    if let Some(user) = info.user {
        ctx.caller = None;
        ctx.user = Some(user);
        ctx.session = info.session;
    }
    let mut headers = match info.rejection {
        // A status page, recorded in log and metrics like any other endpoint.
        Some(mut rejection) => {
            ctx.refusal = Some(rejection.refusal);
            ctx.record_rejection(&mut rejection);
            rejection_headers(&rejection, &ctx.rejected_request(head))
        }
        None => {
            let limits = ctx.response_context().limit_headers(&info.limits);
            limits.map_or_else(FieldBuffer::new, |limits| limits.fields().collect())
        }
    };
    if info.clear_cookie {
        headers.extend(clearing_headers(&ctx.snapshot.settings.sessions.cookie));
    }
    headers
}

/// Identifies the caller. `false`: the call is anonymous.
async fn identify(
    ctx: &mut RequestContext,
    head: RequestHead<'_>,
    credential: CredentialUse,
    extensions: &mut http::Extensions,
) -> bool {
    let current = Arc::clone(&ctx.snapshot);
    let worker = Arc::clone(&ctx.worker);
    let admission = worker.admission(&current, &ctx.request_id);
    let Some(facts) = ctx.facts(head, None) else {
        return false;
    };
    let identifying = async {
        match credential {
            CredentialUse::ApiKey => admission.identify_by_api_key(&facts).await,
            _ => admission.identify(&facts).await,
        }
    };
    let (found, waited) = measure_wait(pin!(identifying)).await;
    ctx.store_time = waited;
    match found {
        Ok(identity) => {
            let is_authenticated = identity.is_some();
            if let Some(identity) = &identity {
                ctx.record_identity(identity);
                ctx.record_session_use(identity);
            }
            extensions.insert(Caller(Ok(identity)));
            is_authenticated
        }
        Err(mut rejection) => {
            // Also for the log of an endpoint that needs no caller.
            ctx.record_rejection(&mut rejection);
            extensions.insert(Caller(Err(rejection)));
            false
        }
    }
}

/// Verifies tokens as if the client of the request had sent them.
fn introspect_token(ctx: &RequestContext) -> Option<IntrospectToken> {
    let origin = ctx.client_origin.clone()?;
    let (worker, snapshot) = (Arc::clone(&ctx.worker), Arc::clone(&ctx.snapshot));
    let (request_id, peer) = (ctx.request_id.clone(), Arc::clone(&ctx.arrival.peer));
    let call = Arc::new((origin, worker, snapshot, request_id, peer));
    Some(IntrospectToken(Arc::new(move |token: String| {
        let call = Arc::clone(&call);
        Box::pin(async move {
            let (origin, worker, snapshot, request_id, peer) = &*call;
            let facts = RequestFacts {
                head: RequestHead {
                    method: &Method::GET,
                    version: Version::HTTP_11,
                    path: "/",
                    query: None,
                    fields: Fields::new(&[]),
                },
                scheme: None,
                host: None,
                client: origin,
                certificate: peer.certificate.as_ref(),
                listener: peer.listener,
                now: clock::unix_millis(),
            };
            let admission = worker.admission(snapshot, request_id);
            admission.introspect(&token, &facts).await
        })
    })))
}
