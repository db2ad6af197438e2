//! The authorization response that a browser brings to a callback (RFC 6749, section 4.1.2), before it
//! is verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use url::form_urlencoded;

use crate::json;
use crate::rejection::CallbackFault;
use crate::settings::provider::ResponseMode;

/// Maximum number of parameters: each one is compared with those before it.
const MAX_PARAMETERS: usize = 32;
/// Maximum length of a code, in bytes.
const MAX_CODE: usize = 4096;

/// How a browser brought the response.
#[derive(Debug, Clone, Copy)]
pub enum SentResponse<'a> {
    /// The query of a `GET`.
    Query(&'a [u8]),
    /// A form, and the query of its address.
    Form { query: &'a [u8], body: &'a [u8] },
}

impl SentResponse<'_> {
    /// The state that the browser sent, even if the rest cannot be read: its flow is over.
    pub fn claimed_state(self) -> Option<String> {
        let (SentResponse::Query(text) | SentResponse::Form { body: text, .. }) = self;
        form_urlencoded::parse(text)
            .take(MAX_PARAMETERS)
            .find_map(|(name, value)| match &*name {
                "state" => Some(value.into_owned()),
                "response" => state_of(&value),
                _ => None,
            })
    }
}

/// An authorization response. It is not printed: it holds the code and the state.
pub struct CallbackResponse {
    /// It is that of the flow, once one is found.
    pub state: String,
    pub content: ResponseContent,
}

/// The content of a response.
pub enum ResponseContent {
    Parameters(ResponseParameters),
    /// A signed token that has the parameters (JARM), and the issuer that is named beside it.
    Token {
        token: String,
        iss: Option<String>,
    },
}

/// The parameters of a response.
pub struct ResponseParameters {
    /// The issuer (RFC 9207).
    pub iss: Option<String>,
    pub result: CallbackResult,
}

/// The result of an authorization request.
pub enum CallbackResult {
    Code(String),
    Failed(CallbackFault),
}

impl CallbackResponse {
    /// Reads a response that was requested in this mode.
    ///
    /// # Errors
    /// Every fault is `FLOW_INVALID`: the browser sent no response of this provider.
    pub fn read(
        mode: ResponseMode,
        sent: SentResponse<'_>,
    ) -> Result<CallbackResponse, CallbackFault> {
        let parameters = match (mode, sent) {
            (ResponseMode::Query | ResponseMode::Jwt, SentResponse::Query(query)) => {
                Parameters::parse(query)?
            }
            (ResponseMode::FormPost, SentResponse::Form { query, body }) => {
                if Parameters::parse(query)?.has_response() {
                    return Err(CallbackFault::WrongResponseMode);
                }
                Parameters::parse(body)?
            }
            _ => return Err(CallbackFault::WrongResponseMode),
        };
        match mode {
            ResponseMode::Jwt => parameters.signed_response(),
            ResponseMode::Query | ResponseMode::FormPost => parameters.plain_response(),
        }
    }
}

impl CallbackResult {
    /// Reads the result from its parameters. A response with an error has no code that counts.
    pub fn of(code: Option<&str>, error: Option<&str>) -> Result<CallbackResult, CallbackFault> {
        let is_code = |code: &&str| {
            (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match (error, code.filter(is_code)) {
            (Some(error), _) => Ok(CallbackResult::Failed(fault_of(error))),
            (None, Some(code)) => Ok(CallbackResult::Code(code.to_owned())),
            (None, None) => Err(CallbackFault::CodeMissing),
        }
    }
}

/// The fault of an `error` (RFC 6749, section 4.1.2.1; OpenID Connect Core 1.0, section 3.1.2.6).
fn fault_of(error: &str) -> CallbackFault {
    match error {
        "access_denied" => CallbackFault::AccessDenied,
        "login_required" => CallbackFault::LoginRequired,
        "interaction_required" => CallbackFault::InteractionRequired,
        "consent_required" => CallbackFault::ConsentRequired,
        "account_selection_required" => CallbackFault::AccountSelectionRequired,
        "unmet_authentication_requirements" => CallbackFault::UnmetAuthenticationRequirements,
        "temporarily_unavailable" => CallbackFault::TemporarilyUnavailable,
        "server_error" => CallbackFault::ServerError,
        _ => CallbackFault::AuthorizationRejected,
    }
}

/// The parameters of a query or a form, each given once.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(text: &[u8]) -> Result<Parameters, CallbackFault> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text) {
            let is_known = parameters.iter().any(|(known, _)| *known == name);
            if is_known || parameters.len() == MAX_PARAMETERS {
                return Err(CallbackFault::ParameterRepeated);
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Parameters(parameters))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn has_response(&self) -> bool {
        ["state", "code", "error", "response", "iss"]
            .iter()
            .any(|name| self.get(name).is_some())
    }

    fn plain_response(&self) -> Result<CallbackResponse, CallbackFault> {
        if self.get("response").is_some() {
            return Err(CallbackFault::WrongResponseMode);
        }
        let state = self.get("state").ok_or(CallbackFault::StateMissing)?;
        Ok(CallbackResponse {
            state: state.to_owned(),
            content: ResponseContent::Parameters(ResponseParameters {
                iss: self.get("iss").map(str::to_owned),
                result: CallbackResult::of(self.get("code"), self.get("error"))?,
            }),
        })
    }

    fn signed_response(&self) -> Result<CallbackResponse, CallbackFault> {
        let token = self.get("response");
        if ["state", "code", "error"]
            .iter()
            .any(|name| self.get(name).is_some())
        {
            return Err(CallbackFault::WrongResponseMode);
        }
        let token = token.ok_or(CallbackFault::WrongResponseMode)?;
        Ok(CallbackResponse {
            state: state_of(token).ok_or(CallbackFault::StateMissing)?,
            content: ResponseContent::Token {
                token: token.to_owned(),
                iss: self.get("iss").map(str::to_owned),
            },
        })
    }
}

/// The state in a token that is not verified yet: without a flow, no key is fetched for it.
fn state_of(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let members = json::parse(&payload).ok()?;
    members
        .get("state")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fault, or what was read.
    fn read(mode: ResponseMode, sent: SentResponse<'_>) -> Result<String, CallbackFault> {
        let response = CallbackResponse::read(mode, sent)?;
        let content = match response.content {
            ResponseContent::Token { iss, .. } => format!("token {}", iss.unwrap_or_default()),
            ResponseContent::Parameters(ResponseParameters { iss, result }) => {
                let result = match result {
                    CallbackResult::Code(code) => code,
                    CallbackResult::Failed(fault) => format!("{fault:?}"),
                };
                format!("{result} {}", iss.unwrap_or_default())
            }
        };
        Ok(format!("{} {}", response.state, content.trim()))
    }

    fn query(mode: ResponseMode, query: &str) -> Result<String, CallbackFault> {
        read(mode, SentResponse::Query(query.as_bytes()))
    }

    #[test]
    fn query_is_read_strictly() {
        use CallbackFault as F;
        let long = format!("state=s&code={}", "c".repeat(MAX_CODE + 1));
        let many: String = (0..=MAX_PARAMETERS)
            .map(|index| format!("p{index}=&"))
            .collect();
        for (sent, expected) in [
            ("state=s&code=c", Ok("s c")),
            (
                "code=c&state=s&iss=https%3A%2F%2Fid.example&session_state=x",
                Ok("s c https://id.example"),
            ),
            ("state=s&error=access_denied", Ok("s AccessDenied")),
            (
                "state=s&error=temporarily_unavailable&error_description=x",
                Ok("s TemporarilyUnavailable"),
            ),
            ("state=s&error=invalid_scope", Ok("s AuthorizationRejected")),
            ("state=s&error=", Ok("s AuthorizationRejected")),
            ("state=s&error=access_denied&code=c", Ok("s AccessDenied")),
            ("", Err(F::StateMissing)),
            ("code=c", Err(F::StateMissing)),
            ("state=s", Err(F::CodeMissing)),
            ("state=s&code=", Err(F::CodeMissing)),
            ("state=s&code=a%0Ab", Err(F::CodeMissing)),
            (&long, Err(F::CodeMissing)),
            ("state=s&code=c&state=s", Err(F::ParameterRepeated)),
            ("state=s&code=c&code=d", Err(F::ParameterRepeated)),
            ("state=s&code=c&iss=a&iss=a", Err(F::ParameterRepeated)),
            ("state=s&code=c&x=1&x=2", Err(F::ParameterRepeated)),
            ("state=s&code=c&st%61te=t", Err(F::ParameterRepeated)),
            (&many, Err(F::ParameterRepeated)),
            ("response=a.b.c", Err(F::WrongResponseMode)),
            ("state=s&code=c&response=a.b.c", Err(F::WrongResponseMode)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(query(ResponseMode::Query, sent), expected, "{sent}");
        }
    }

    #[test]
    fn other_modes_than_the_requested_one_are_invalid() {
        let wrong = Err(CallbackFault::WrongResponseMode);
        let form = |query: &'static str, body: &'static str| SentResponse::Form {
            query: query.as_bytes(),
            body: body.as_bytes(),
        };
        let good = "state=s&code=c";
        assert_eq!(query(ResponseMode::FormPost, good), wrong);
        assert_eq!(read(ResponseMode::Query, form("", good)), wrong);
        assert_eq!(read(ResponseMode::Jwt, form("", "response=a.b.c")), wrong);
        assert_eq!(
            read(ResponseMode::FormPost, form("", good)),
            Ok("s c".to_owned())
        );
        for in_query in [good, "state=s", "code=c", "iss=x", "error=x", "response=x"] {
            assert_eq!(read(ResponseMode::FormPost, form(in_query, good)), wrong);
        }
        assert_eq!(query(ResponseMode::Jwt, good), wrong);
        assert_eq!(query(ResponseMode::Jwt, ""), wrong);
    }

    #[test]
    fn state_of_a_signed_response_is_found_before_it_is_verified() {
        let token = |payload: &str| format!("response=e30.{}.x", URL_SAFE_NO_PAD.encode(payload));
        let read = |payload: &str| query(ResponseMode::Jwt, &token(payload));
        assert_eq!(
            read("{\"state\":\"s\",\"code\":\"c\"}"),
            Ok("s token".to_owned())
        );
        for bad in [
            "{}",
            "{\"state\":1}",
            "{\"state\":\"s\",\"state\":\"t\"}",
            "[]",
            "",
        ] {
            assert_eq!(read(bad), Err(CallbackFault::StateMissing), "{bad}");
        }
        let token = token("{\"state\":\"s\"}");
        let beside = |more: &str| query(ResponseMode::Jwt, &format!("{token}&{more}"));
        for bare in ["code=c", "state=s", "error=x"] {
            assert_eq!(
                beside(bare),
                Err(CallbackFault::WrongResponseMode),
                "{bare}"
            );
        }
        let repeated = Err(CallbackFault::ParameterRepeated);
        assert_eq!(beside("response=a.b.c"), repeated);
        // It is compared with the provider's.
        assert_eq!(beside("iss=i"), Ok("s token i".to_owned()));
    }
}
