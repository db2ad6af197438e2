//! Authentication of the gateway as a client of an authorization server (RFC 6749, section 2.3; RFC
//! 7523).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::clock;
use crate::settings::provider::ClientAuthentication;

/// The type of a client assertion (RFC 7523, section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The parameters of a request. They hold secrets and are not printed.
pub(crate) struct Form(String);

impl Form {
    pub(crate) fn new() -> Form {
        Form(String::new())
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Form {
        self.push(name, value);
        self
    }

    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let mut serializer = Serializer::new(std::mem::take(&mut self.0));
        self.0 = serializer.append_pair(name, value).finish();
    }

    /// The body of a request.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form(…)")
    }
}

/// The client cannot be authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the authentication of the client cannot be made")]
pub struct NoAuthentication;

/// Adds the authentication of a client to a form, and returns the headers of the request. `audience`
/// is that of an assertion.
pub(crate) fn authenticate(
    client_id: &str,
    authentication: &ClientAuthentication,
    audience: &str,
    form: &mut Form,
) -> Result<HeaderMap, NoAuthentication> {
    let mut headers = HeaderMap::new();
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(header::CONTENT_TYPE, form_type);
    match authentication {
        ClientAuthentication::SecretBasic(secret) => {
            headers.insert(header::AUTHORIZATION, basic(client_id, secret)?);
        }
        ClientAuthentication::SecretPost(secret) => {
            form.push("client_id", client_id);
            form.push("client_secret", secret.expose_secret());
        }
        ClientAuthentication::PrivateKey(key) => {
            let now = clock::unix_millis();
            let assertion = key.sign_client_assertion(client_id, audience, now);
            let assertion = assertion.map_err(|_| NoAuthentication)?;
            form.push("client_id", client_id);
            form.push("client_assertion_type", ASSERTION_TYPE);
            form.push("client_assertion", &assertion);
        }
        ClientAuthentication::None => form.push("client_id", client_id),
    }
    Ok(headers)
}

/// ID and secret are form-encoded before they are joined (RFC 6749, section 2.3.1).
fn basic(client_id: &str, secret: &SecretString) -> Result<HeaderValue, NoAuthentication> {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(client_id), encode(secret.expose_secret()));
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.map_err(|_| NoAuthentication)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn id_and_secret_are_form_encoded_before_basic() {
        for (id, secret, expected) in [
            ("id", "secret", "id:secret"),
            ("a:b", "p@ss word%", "a%3Ab:p%40ss+word%25"),
            ("ü", "+/=&", "%C3%BC:%2B%2F%3D%26"),
        ] {
            let value = basic(id, &secret.into()).unwrap();
            let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
            let decoded = STANDARD.decode(encoded).unwrap();
            assert_eq!(String::from_utf8(decoded).unwrap(), expected);
            assert!(value.is_sensitive());
        }
    }

    #[test]
    fn form_is_not_printed() {
        let form = Form::new().with("code", "hunter2");
        assert!(!format!("{form:?}").contains("hunter2"));
    }
}
