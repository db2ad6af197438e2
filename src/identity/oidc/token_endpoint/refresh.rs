//! Exchange of a refresh token (RFC 6749, section 6). Many providers replace the token at each use, and take
//! a second use of it for theft: what became of it must never be guessed.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{ErrorReports, TokenResponse, fault_of_error, read_tokens, rejection_fault, token};
use crate::identity::oidc::call::{ContentKind, LateResponse, ProviderResponse};
use crate::identity::oidc::client_authentication::Form;
use crate::identity::oidc::providers::ProviderClient;
use crate::json;
use crate::rejection::CallbackFault;
use crate::telemetry::metrics::ProviderEndpoint;

/// How long a late response may still bring the successor of a refresh token.
const GRACE: Duration = Duration::from_secs(10);

/// What became of a refresh token.
#[derive(Debug)]
pub enum RefreshOutcome {
    /// The provider has used the token. Its successor counts whatever is wrong with the rest of the
    /// response; without one, the token stays valid.
    Used {
        successor: Option<SecretString>,
        tokens: Result<TokenResponse, CallbackFault>,
    },
    /// The provider has not used the token. `GrantRejected`: it never will.
    Unused(CallbackFault),
    /// The provider may have used the token.
    Lost(CallbackFault, Option<LateSuccessor>),
}

/// The successor of a refresh token, in a response that is late.
pub struct LateSuccessor {
    response: LateResponse,
    reports: ErrorReports,
}

impl fmt::Debug for LateSuccessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LateSuccessor(…)")
    }
}

impl LateSuccessor {
    /// Waits for the response, for a few seconds; `None`: it has no successor, or there is none.
    pub async fn wait(self) -> Option<SecretString> {
        let response = self.response.wait().await?;
        match read(Ok(response), self.reports) {
            RefreshOutcome::Used { successor, .. } => successor,
            RefreshOutcome::Unused(_) | RefreshOutcome::Lost(..) => None,
        }
    }
}

impl ProviderClient {
    /// Exchanges a refresh token, at most once.
    pub async fn refresh(&self, refresh_token: &SecretString) -> RefreshOutcome {
        let form = Form::new()
            .with("grant_type", "refresh_token")
            .with("refresh_token", refresh_token.expose_secret());
        let request = match self.token_request(form).await {
            Ok(request) => request,
            Err(fault) => return RefreshOutcome::Unused(fault),
        };
        let reports = self.error_reports();
        let read = |response| {
            let outcome = read(response, reports);
            let fault = outcome.fault();
            (outcome, fault)
        };
        let called = self
            .caller
            .call_patiently(ProviderEndpoint::Token, request, GRACE, read)
            .await;
        let outcome = called.unwrap_or_else(|response| {
            let late = LateSuccessor { response, reports };
            RefreshOutcome::Lost(CallbackFault::TimedOut, Some(late))
        });
        self.log_fault_of_gateway(outcome.fault());
        outcome
    }
}

impl RefreshOutcome {
    fn fault(&self) -> Option<CallbackFault> {
        match self {
            RefreshOutcome::Used { tokens, .. } => tokens.as_ref().err().copied(),
            RefreshOutcome::Unused(fault) | RefreshOutcome::Lost(fault, _) => Some(*fault),
        }
    }
}

/// Classifies a response, or the failure to get one.
fn read(
    response: Result<ProviderResponse, CallbackFault>,
    reports: ErrorReports,
) -> RefreshOutcome {
    let response = match response {
        Ok(response) => response,
        Err(
            fault @ (CallbackFault::ConnectionLost
            | CallbackFault::TimedOut
            | CallbackFault::ProxyFailed
            | CallbackFault::ResponseTooLarge),
        ) => return RefreshOutcome::Lost(fault, None),
        Err(fault) => return RefreshOutcome::Unused(fault),
    };
    if response.status.is_client_error() {
        return RefreshOutcome::Unused(rejection_fault(&response));
    }
    if response.content != ContentKind::Json {
        return RefreshOutcome::Lost(CallbackFault::UnexpectedContentType, None);
    }
    let Ok(members) = json::parse(&response.body) else {
        return RefreshOutcome::Lost(CallbackFault::ResponseMalformed, None);
    };
    if reports == ErrorReports::AlsoInSuccess
        && let Some(error) = members.get("error").and_then(Value::as_str)
    {
        return RefreshOutcome::Unused(fault_of_error(error));
    }
    let tokens = match response.status {
        http::StatusCode::OK => read_tokens(&members),
        _ => Err(CallbackFault::UnexpectedStatus),
    };
    match token(&members, "refresh_token") {
        Ok(successor) => RefreshOutcome::Used { successor, tokens },
        Err(fault) => RefreshOutcome::Lost(fault, None),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    /// Reads a response, and describes what became of the token.
    fn outcome(status: u16, content: ContentKind, body: &str, reports: ErrorReports) -> String {
        let response = ProviderResponse {
            status: StatusCode::from_u16(status).unwrap(),
            content,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        match read(Ok(response), reports) {
            RefreshOutcome::Used { successor, tokens } => {
                let successor = successor.map(|token| token.expose_secret().to_owned());
                let fault = tokens.err().map(|fault| format!("{fault:?}"));
                format!("used {successor:?} {fault:?}").replace('"', "")
            }
            RefreshOutcome::Unused(fault) => format!("unused {fault:?}"),
            RefreshOutcome::Lost(fault, _) => format!("lost {fault:?}"),
        }
    }

    #[test]
    fn successor_counts_whatever_is_wrong_with_the_rest() {
        let json = |status, body| outcome(status, ContentKind::Json, body, ErrorReports::ByStatus);
        for (status, body, expected) in [
            (
                200,
                r#"{"access_token":"a","token_type":"Bearer","refresh_token":"r"}"#,
                "used Some(r) None",
            ),
            (
                200,
                r#"{"access_token":"a","token_type":"Bearer"}"#,
                "used None None",
            ),
            (
                200,
                r#"{"refresh_token":"r"}"#,
                "used Some(r) Some(AccessTokenMissing)",
            ),
            (
                200,
                r#"{"access_token":"a","token_type":"DPoP","refresh_token":"r"}"#,
                "used Some(r) Some(TokenTypeUnsupported)",
            ),
            (
                201,
                r#"{"access_token":"a","token_type":"Bearer","refresh_token":"r"}"#,
                "used Some(r) Some(UnexpectedStatus)",
            ),
            (
                200,
                r#"{"access_token":"a","token_type":"Bearer","refresh_token":1}"#,
                "lost ResponseMalformed",
            ),
            (
                200,
                r#"{"refresh_token":"r","refresh_token":"s"}"#,
                "lost ResponseMalformed",
            ),
            (200, "<html>", "lost ResponseMalformed"),
            (400, r#"{"error":"invalid_grant"}"#, "unused GrantRejected"),
            (
                401,
                r#"{"error":"invalid_client"}"#,
                "unused ClientRejected",
            ),
            (400, "x", "unused RequestRejected"),
        ] {
            assert_eq!(json(status, body), expected, "{status} {body}");
        }
        let html = outcome(200, ContentKind::Other, "x", ErrorReports::ByStatus);
        assert_eq!(html, "lost UnexpectedContentType");
        let error = r#"{"error":"bad_verification_code"}"#;
        let github = outcome(200, ContentKind::Json, error, ErrorReports::AlsoInSuccess);
        assert_eq!(github, "unused GrantRejected");
    }

    #[test]
    fn only_a_request_that_may_have_been_processed_is_lost() {
        for (fault, is_lost) in [
            (CallbackFault::ConnectionLost, true),
            (CallbackFault::TimedOut, true),
            (CallbackFault::ResponseTooLarge, true),
            (CallbackFault::ProxyFailed, true),
            (CallbackFault::Unreachable, false),
            (CallbackFault::TooManyRequests, false),
            (CallbackFault::ServerFailed, false),
            (CallbackFault::TooManyCalls, false),
        ] {
            let outcome = read(Err(fault), ErrorReports::ByStatus);
            assert_eq!(
                matches!(outcome, RefreshOutcome::Lost(..)),
                is_lost,
                "{fault:?}"
            );
        }
    }
}
