//! The token endpoint: redeems codes and refreshes tokens (RFC 6749, sections 4.1.3, 5 and 6).

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::call::{ContentKind, ProviderRequest, ProviderResponse};
use super::client_authentication::Form;
use super::providers::ProviderClient;
use crate::json;
use crate::rejection::CallbackFault;
use crate::telemetry::metrics::ProviderEndpoint;

pub use refresh::{LateSuccessor, RefreshOutcome};

/// The tokens of a response. They are not printed.
#[derive(Clone)]
pub struct TokenResponse {
    pub access_token: SecretString,
    /// Present in the response to a code of a provider with ID tokens.
    pub id_token: Option<SecretString>,
    pub refresh_token: Option<SecretString>,
    /// How long the access token is valid, if the provider says so.
    pub expires_in: Option<Duration>,
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenResponse(…)")
    }
}

impl ProviderClient {
    /// Redeems a code, at most once: whatever happens to the request, it is not sent again.
    ///
    /// # Errors
    ///
    /// `GrantRejected` for a code that the provider does not accept, `CodeRepeated` for one that this
    /// gateway has redeemed before; a fault of the provider or of the gateway otherwise.
    pub async fn redeem(
        &self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<TokenResponse, CallbackFault> {
        // Without metadata the code is not sent.
        self.discovered().await?;
        if !self.redeemed_codes.add(code) {
            return Err(CallbackFault::CodeRepeated);
        }
        let form = Form::new()
            .with("grant_type", "authorization_code")
            .with("code", code)
            .with("redirect_uri", redirect_uri)
            .with("code_verifier", verifier);
        let tokens = self.request_tokens(form).await?;
        if self.settings().has_id_tokens() && tokens.id_token.is_none() {
            return Err(CallbackFault::IdTokenMissing);
        }
        Ok(tokens)
    }

    async fn request_tokens(&self, form: Form) -> Result<TokenResponse, CallbackFault> {
        let request = self.token_request(form).await?;
        let reports = self.error_reports();
        let read = |response: &ProviderResponse| read_response(response, reports);
        let result = self
            .caller
            .call(ProviderEndpoint::Token, request, read)
            .await;
        self.log_fault_of_gateway(result.as_ref().err().copied());
        result
    }

    async fn token_request(&self, form: Form) -> Result<ProviderRequest, CallbackFault> {
        let discovered = self.discovered().await?;
        let metadata = &discovered.metadata;
        self.authenticated_post(metadata.token.clone(), form, metadata)
    }

    fn error_reports(&self) -> ErrorReports {
        match self.settings().has_id_tokens() {
            true => ErrorReports::ByStatus,
            false => ErrorReports::AlsoInSuccess,
        }
    }

    fn log_fault_of_gateway(&self, fault: Option<CallbackFault>) {
        if let Some(fault @ (CallbackFault::ClientRejected | CallbackFault::RequestRejected)) =
            fault
        {
            // The operator has to mend the registration of the client.
            let (provider, reason) = (&*self.settings().name, fault.as_str());
            tracing::error!(provider, reason, "the token endpoint rejected the gateway");
        }
    }
}

/// How a token endpoint reports errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorReports {
    /// By a status of 4xx (RFC 6749, section 5.2).
    ByStatus,
    /// Also with status 200, as GitHub does.
    AlsoInSuccess,
}

/// Classifies a response that is neither 429 nor 5xx.
fn read_response(
    response: &ProviderResponse,
    reports: ErrorReports,
) -> Result<TokenResponse, CallbackFault> {
    if response.status.is_client_error() {
        return Err(rejection_fault(response));
    }
    if response.status != StatusCode::OK {
        return Err(CallbackFault::UnexpectedStatus);
    }
    if response.content != ContentKind::Json {
        return Err(CallbackFault::UnexpectedContentType);
    }
    let members = json::parse(&response.body).map_err(|_| CallbackFault::ResponseMalformed)?;
    if reports == ErrorReports::AlsoInSuccess
        && let Some(error) = members.get("error").and_then(Value::as_str)
    {
        return Err(fault_of_error(error));
    }
    read_tokens(&members)
}

/// Classifies a response with a status of 4xx. Only an error that the provider states clearly counts
/// as `invalid_grant`.
pub(super) fn rejection_fault(response: &ProviderResponse) -> CallbackFault {
    let members = match response.content {
        ContentKind::Json => json::parse(&response.body).ok(),
        ContentKind::Jwt | ContentKind::Other => None,
    };
    let error = members
        .as_ref()
        .and_then(|members| members.get("error")?.as_str());
    error.map_or(CallbackFault::RequestRejected, fault_of_error)
}

fn fault_of_error(error: &str) -> CallbackFault {
    match error {
        // The second one is GitHub's.
        "invalid_grant" | "bad_verification_code" => CallbackFault::GrantRejected,
        "invalid_client" | "incorrect_client_credentials" => CallbackFault::ClientRejected,
        _ => CallbackFault::RequestRejected,
    }
}

fn read_tokens(members: &Map<String, Value>) -> Result<TokenResponse, CallbackFault> {
    let access_token = token(members, "access_token")?.ok_or(CallbackFault::AccessTokenMissing)?;
    let token_type = members.get("token_type").and_then(Value::as_str);
    // The type is compared without case (RFC 6749, section 7.1).
    if !token_type.is_some_and(|token_type| token_type.eq_ignore_ascii_case("bearer")) {
        return Err(CallbackFault::TokenTypeUnsupported);
    }
    Ok(TokenResponse {
        access_token,
        id_token: token(members, "id_token")?,
        refresh_token: token(members, "refresh_token")?,
        expires_in: lifetime(members.get("expires_in"))?,
    })
}

/// Returns a token: visible ASCII characters and spaces (RFC 6749, appendix A.12). `null` counts as
/// absent.
fn token(members: &Map<String, Value>, name: &str) -> Result<Option<SecretString>, CallbackFault> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) =>
        {
            Ok(Some(SecretString::from(text.as_str())))
        }
        Some(_) => Err(CallbackFault::ResponseMalformed),
    }
}

/// Returns a number of seconds, which some providers send as a string.
fn lifetime(value: Option<&Value>) -> Result<Option<Duration>, CallbackFault> {
    let seconds = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) => digits.parse().ok(),
        Some(_) => None,
    };
    let seconds = seconds.ok_or(CallbackFault::ResponseMalformed)?;
    Ok(Some(Duration::from_secs(seconds)))
}

mod refresh;

#[cfg(test)]
mod tests;
