//! Revocation of refresh tokens (RFC 7009).

use secrecy::{ExposeSecret, SecretString};

use super::client_authentication::Form;
use super::providers::ProviderClient;
use super::token_endpoint::rejection_fault;
use crate::rejection::CallbackFault;
use crate::telemetry::metrics::ProviderEndpoint;

impl ProviderClient {
    /// Revokes a refresh token. A provider without such an endpoint has nothing to revoke.
    ///
    /// # Errors
    ///
    /// The provider did not confirm the revocation.
    pub async fn revoke(&self, refresh_token: &SecretString) -> Result<(), CallbackFault> {
        let discovered = self.discovered().await?;
        let metadata = &discovered.metadata;
        let Some(url) = metadata.revocation.clone() else {
            return Ok(());
        };
        let form = Form::new()
            .with("token", refresh_token.expose_secret())
            .with("token_type_hint", "refresh_token");
        let request = self.authenticated_post(url, form, metadata)?;
        let revoked = self
            .caller
            .call(ProviderEndpoint::Revocation, request, |response| {
                // A token that the provider does not know is confirmed, too (section 2.2).
                match response.status.as_u16() {
                    200..=299 => Ok(()),
                    400..=499 => Err(rejection_fault(response)),
                    _ => Err(CallbackFault::UnexpectedStatus),
                }
            });
        revoked.await
    }
}
