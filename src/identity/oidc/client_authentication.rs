//! Authentication of the gateway at a provider's endpoints (RFC 6749, section 2.3; RFC 7523), and the
//! form of a request to them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::call::ProviderRequest;
use super::metadata::ProviderMetadata;
use super::providers::ProviderClient;
use crate::clock;
use crate::rejection::CallbackFault;
use crate::settings::provider::ClientAuthentication;

/// The type of a client assertion (RFC 7523, section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The parameters of a request to a provider. They hold secrets and are not printed.
pub(super) struct Form(String);

impl Form {
    pub(super) fn new() -> Form {
        Form(String::new())
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Form {
        self.push(name, value);
        self
    }

    pub(super) fn push(&mut self, name: &str, value: &str) {
        let mut serializer = Serializer::new(std::mem::take(&mut self.0));
        self.0 = serializer.append_pair(name, value).finish();
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form(…)")
    }
}

impl ProviderClient {
    /// Builds a POST that the gateway authenticates.
    pub(super) fn authenticated_post(
        &self,
        url: Url,
        mut form: Form,
        metadata: &ProviderMetadata,
    ) -> Result<ProviderRequest, CallbackFault> {
        let mut headers = HeaderMap::new();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form_type);
        let client_id = &self.settings().client_id;
        match &self.settings().client_auth {
            ClientAuthentication::SecretBasic(secret) => {
                headers.insert(header::AUTHORIZATION, basic(client_id, secret)?);
            }
            ClientAuthentication::SecretPost(secret) => {
                form.push("client_id", client_id);
                form.push("client_secret", secret.expose_secret());
            }
            ClientAuthentication::PrivateKey(key) => {
                let audience = self.assertion_audience(metadata);
                let now = clock::unix_millis();
                let assertion = key.sign_client_assertion(client_id, audience, now);
                let assertion = assertion.map_err(|_| CallbackFault::ClientAssertionFailed)?;
                form.push("client_id", client_id);
                form.push("client_assertion_type", ASSERTION_TYPE);
                form.push("client_assertion", &assertion);
            }
            ClientAuthentication::None => form.push("client_id", client_id),
        }
        Ok(ProviderRequest {
            method: Method::POST,
            url,
            headers,
            body: form.0.into(),
        })
    }

    /// Whether the client ID is in a header, so that the parameters lack it.
    pub(super) fn authenticates_by_header(&self) -> bool {
        matches!(
            self.settings().client_auth,
            ClientAuthentication::SecretBasic(_)
        )
    }

    /// The issuer alone. Without one name for it, the token endpoint stands for it (RFC 7523, section
    /// 3).
    fn assertion_audience<'a>(&'a self, metadata: &'a ProviderMetadata) -> &'a str {
        let issuer = self.settings().exact_issuer();
        issuer.unwrap_or(metadata.token.as_str())
    }
}

/// ID and secret are form-encoded before they are joined (RFC 6749, section 2.3.1).
fn basic(client_id: &str, secret: &SecretString) -> Result<HeaderValue, CallbackFault> {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(client_id), encode(secret.expose_secret()));
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.map_err(|_| CallbackFault::ClientAssertionFailed)?;
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
