//! Authentication of the gateway at a provider's endpoints, and the form of a request to them.

use http::Method;
use url::Url;

use super::call::ProviderRequest;
use super::metadata::ProviderMetadata;
use super::providers::ProviderClient;
pub(super) use crate::issuers::Form;
use crate::issuers::authenticate;
use crate::rejection::CallbackFault;
use crate::settings::provider::ClientAuthentication;

impl ProviderClient {
    /// Builds a POST that the gateway authenticates.
    pub(super) fn authenticated_post(
        &self,
        url: Url,
        mut form: Form,
        metadata: &ProviderMetadata,
    ) -> Result<ProviderRequest, CallbackFault> {
        let settings = self.settings();
        let audience = self.assertion_audience(metadata);
        let (id, method) = (&settings.client_id, &settings.client_auth);
        let headers = authenticate(id, method, audience, &mut form);
        Ok(ProviderRequest {
            method: Method::POST,
            url,
            headers: headers.map_err(|_| CallbackFault::ClientAssertionFailed)?,
            body: form.into_text().into(),
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
