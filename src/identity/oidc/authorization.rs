//! Authorization requests: the address to which a browser is sent (RFC 6749, section 4.1.1; OpenID
//! Connect Core 1.0, section 3.1.2.1), pushed before where that is asked for (RFC 9126).

use http::StatusCode;
use serde_json::Value;
use url::Url;

use super::call::{ContentKind, ProviderResponse};
use super::client_authentication::Form;
use super::metadata::ProviderMetadata;
use super::providers::ProviderClient;
use super::token_endpoint::rejection_fault;
use crate::json;
use crate::rejection::CallbackFault;
use crate::settings::provider::{Par, ResponseMode};
use crate::telemetry::metrics::ProviderEndpoint;

/// Maximum length of the reference to a pushed request, in bytes.
const MAX_REQUEST_URI: usize = 2048;

/// What a flow asks a provider for.
#[derive(Clone, Copy)]
pub struct AuthorizationRequest<'a> {
    pub redirect_uri: &'a str,
    pub state: &'a str,
    /// Only sent to a provider with ID tokens.
    pub nonce: &'a str,
    /// The S256 challenge of the flow's verifier (RFC 7636).
    pub code_challenge: &'a str,
    pub prompt: Option<&'a str>,
    pub login_hint: Option<&'a str>,
    pub acr_values: Option<&'a str>,
    /// In seconds; [`ProviderClient::effective_max_age`] of what was requested.
    pub max_age: Option<u64>,
}

impl ProviderClient {
    /// The `max_age` of a flow: that of the configuration bounds the one that is requested.
    pub fn effective_max_age(&self, requested: Option<u64>) -> Option<u64> {
        let mut params = self.settings().authorization_params.iter();
        let configured = params.find(|(name, _)| name == "max_age");
        let configured = configured.and_then(|(_, value)| value.parse::<u64>().ok());
        requested.into_iter().chain(configured).min()
    }

    /// Returns the address to which the browser is sent.
    ///
    /// # Errors
    ///
    /// The metadata was never available, or the provider does not accept the pushed request.
    pub async fn authorization_url(
        &self,
        request: &AuthorizationRequest<'_>,
    ) -> Result<Url, CallbackFault> {
        let discovered = self.discovered().await?;
        let metadata = &discovered.metadata;
        let params = self.authorization_params(request);
        let mut url = metadata.authorization.clone();
        if self.is_pushed(metadata) {
            let request_uri = self.push(metadata, &params).await?;
            url.query_pairs_mut()
                .append_pair("client_id", &self.settings().client_id)
                .append_pair("request_uri", &request_uri);
        } else {
            url.query_pairs_mut().extend_pairs(&params);
        }
        Ok(url)
    }

    fn is_pushed(&self, metadata: &ProviderMetadata) -> bool {
        match self.settings().par {
            Par::Always => true,
            Par::Auto => metadata.requires_par,
            Par::Never => false,
        }
    }

    /// Collects the parameters, each once. Those of the flow replace those of the configuration.
    fn authorization_params(&self, request: &AuthorizationRequest<'_>) -> Vec<(String, String)> {
        let settings = self.settings();
        let response_mode = match settings.response_mode {
            // The default of `code`.
            ResponseMode::Query => None,
            ResponseMode::FormPost => Some("form_post"),
            ResponseMode::Jwt => Some("jwt"),
        };
        let nonce = settings.has_id_tokens().then_some(request.nonce);
        let scope = settings.scopes.join(" ");
        let max_age = request.max_age.map(|seconds| seconds.to_string());
        let own = [
            ("response_type", Some("code")),
            ("client_id", Some(settings.client_id.as_str())),
            ("redirect_uri", Some(request.redirect_uri)),
            (
                "scope",
                Some(scope.as_str()).filter(|scope| !scope.is_empty()),
            ),
            ("state", Some(request.state)),
            ("nonce", nonce),
            ("code_challenge", Some(request.code_challenge)),
            ("code_challenge_method", Some("S256")),
            ("response_mode", response_mode),
            ("prompt", request.prompt),
            ("login_hint", request.login_hint),
            ("acr_values", request.acr_values),
            ("max_age", max_age.as_deref()),
        ];
        let mut params: Vec<(String, String)> = own
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        for (name, value) in &settings.authorization_params {
            if !params.iter().any(|(own, _)| own == name) {
                params.push((name.clone(), value.clone()));
            }
        }
        params
    }

    /// Pushes the request, and returns the reference to it.
    async fn push(
        &self,
        metadata: &ProviderMetadata,
        params: &[(String, String)],
    ) -> Result<String, CallbackFault> {
        let url = metadata.par.clone().ok_or(CallbackFault::EndpointMissing)?;
        // The client's authentication adds the client ID where it is not in a header.
        let form = params
            .iter()
            .filter(|(name, _)| name != "client_id" || self.authenticates_by_header())
            .fold(Form::new(), |form, (name, value)| form.with(name, value));
        let request = self.authenticated_post(url, form, metadata)?;
        let pushed = self
            .caller
            .call(ProviderEndpoint::Par, request, read_pushed);
        pushed.await
    }
}

fn read_pushed(response: &ProviderResponse) -> Result<String, CallbackFault> {
    if response.status.is_client_error() {
        return Err(match rejection_fault(response) {
            CallbackFault::ClientRejected => CallbackFault::ClientRejected,
            _ => CallbackFault::RequestRejected,
        });
    }
    // 201 by the specification; some providers send 200.
    if !matches!(response.status, StatusCode::CREATED | StatusCode::OK) {
        return Err(CallbackFault::UnexpectedStatus);
    }
    if response.content != ContentKind::Json {
        return Err(CallbackFault::UnexpectedContentType);
    }
    let members = json::parse(&response.body).map_err(|_| CallbackFault::ResponseMalformed)?;
    match members.get("request_uri") {
        Some(Value::String(reference))
            if (1..=MAX_REQUEST_URI).contains(&reference.len())
                && reference.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(reference.clone())
        }
        _ => Err(CallbackFault::ResponseMalformed),
    }
}
