//! The userinfo endpoint (OpenID Connect Core 1.0, section 5.3), and what it adds to an ID token.

use http::{HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use super::call::{ContentKind, ProviderRequest, ProviderResponse};
use super::github;
use super::providers::ProviderClient;
use super::user::{ProviderUser, UserClaims};
use crate::auth::token::provider_token::IdToken;
use crate::json;
use crate::rejection::CallbackFault;
use crate::settings::provider::{ProviderKind, UserinfoUse};
use crate::telemetry::metrics::ProviderEndpoint;

impl ProviderClient {
    /// Reads the user from the claims of an ID token, of the same response as the access token, and
    /// from userinfo where that is asked for or there is no ID token.
    ///
    /// # Errors
    ///
    /// Userinfo is of another user or not available, or a mapped claim is not usable.
    pub async fn read_user(
        &self,
        access_token: &SecretString,
        id_token: Option<&IdToken>,
    ) -> Result<ProviderUser, CallbackFault> {
        let userinfo = match id_token {
            Some(id_token) => self.userinfo_beside(access_token, id_token).await?,
            None => Some(self.userinfo(access_token).await?),
        };
        let of_token = id_token.map(|id_token| &id_token.claims);
        UserClaims::new(of_token.into_iter().chain(userinfo.as_ref())).read(self.settings())
    }

    /// Reads the user anew after a refresh without an ID token: from userinfo, and what it lacks from the
    /// claims of an earlier ID token. `None`: userinfo is not to be queried.
    ///
    /// # Errors
    ///
    /// As above. `SubjectChanged`: the access token is another user's.
    pub async fn read_user_again(
        &self,
        access_token: &SecretString,
        subject: &str,
        earlier: Option<&Map<String, Value>>,
    ) -> Result<Option<ProviderUser>, CallbackFault> {
        let settings = self.settings();
        let has_endpoint = self.discovered().await?.metadata.userinfo.is_some();
        if settings.userinfo == UserinfoUse::Never || !has_endpoint {
            return Ok(None);
        }
        let userinfo = self.userinfo(access_token).await?;
        if userinfo.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(CallbackFault::SubjectChanged);
        }
        let claims = UserClaims::new([Some(&userinfo), earlier].into_iter().flatten());
        claims.read(settings).map(Some)
    }

    /// Queries userinfo if it is needed beside an ID token. Its `sub` must be that of the token:
    /// otherwise the access token is another user's (section 5.3.2).
    async fn userinfo_beside(
        &self,
        access_token: &SecretString,
        id_token: &IdToken,
    ) -> Result<Option<Map<String, Value>>, CallbackFault> {
        let settings = self.settings();
        let is_needed = match settings.userinfo {
            UserinfoUse::Always => true,
            UserinfoUse::Never => false,
            UserinfoUse::Auto => {
                let is_complete = UserClaims::new([&id_token.claims]).are_complete(settings);
                !is_complete && self.discovered().await?.metadata.userinfo.is_some()
            }
        };
        if !is_needed {
            return Ok(None);
        }
        let userinfo = self.userinfo(access_token).await?;
        let subject = userinfo.get("sub").and_then(Value::as_str);
        if subject != Some(id_token.subject.as_str()) {
            return Err(CallbackFault::UserinfoSubject);
        }
        Ok(Some(userinfo))
    }

    async fn userinfo(
        &self,
        access_token: &SecretString,
    ) -> Result<Map<String, Value>, CallbackFault> {
        let discovered = self.discovered().await?;
        let url = discovered.metadata.userinfo.as_ref();
        let url = url.ok_or(CallbackFault::EndpointMissing)?;
        match self.settings().kind {
            ProviderKind::Oidc | ProviderKind::OAuth2 => {
                let value = self.get_with_token(url.clone(), access_token).await?;
                into_object(value)
            }
            ProviderKind::GitHub => github::userinfo(self, url, access_token).await,
        }
    }

    /// Reads JSON from a resource of the user.
    pub(super) async fn get_with_token(
        &self,
        url: Url,
        access_token: &SecretString,
    ) -> Result<Value, CallbackFault> {
        let bearer = format!("Bearer {}", access_token.expose_secret());
        let bearer = HeaderValue::try_from(bearer);
        let mut bearer = bearer.map_err(|_| CallbackFault::ResponseMalformed)?;
        bearer.set_sensitive(true);
        let mut request = ProviderRequest::get(url);
        request.headers.insert(header::AUTHORIZATION, bearer);
        let sent = self
            .caller
            .call(ProviderEndpoint::Userinfo, request, read_response);
        sent.await
    }
}

fn read_response(response: &ProviderResponse) -> Result<Value, CallbackFault> {
    if response.status.is_client_error() {
        return Err(CallbackFault::UserinfoRejected);
    }
    if response.status != StatusCode::OK {
        return Err(CallbackFault::UnexpectedStatus);
    }
    match response.content {
        ContentKind::Json => {}
        ContentKind::Jwt => return Err(CallbackFault::UserinfoSigned),
        ContentKind::Other => return Err(CallbackFault::UnexpectedContentType),
    }
    json::parse_value(&response.body).map_err(|_| CallbackFault::ResponseMalformed)
}

pub(super) fn into_object(value: Value) -> Result<Map<String, Value>, CallbackFault> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(CallbackFault::ResponseMalformed),
    }
}
