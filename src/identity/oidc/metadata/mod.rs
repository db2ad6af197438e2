//! Metadata of a provider (OpenID Connect Discovery 1.0, section 3; RFC 8414).

use serde_json::Value;
use url::Url;

use crate::issuers::{MetadataDocument, MetadataError, is_loopback_issuer, is_secure_url};
use crate::json;
use crate::settings::provider::{Endpoints, Issuer, Provider, ProviderKind, TENANT_ID};

/// The path of the document below an issuer.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// The addresses and abilities of a provider. Configured addresses have replaced those of its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderMetadata {
    pub authorization: Url,
    pub token: Url,
    pub userinfo: Option<Url>,
    pub jwks: Option<Url>,
    pub end_session: Option<Url>,
    pub par: Option<Url>,
    pub revocation: Option<Url>,
    /// Whether authorization requests must be pushed (RFC 9126).
    pub requires_par: bool,
    /// Whether every authorization response has `iss` (RFC 9207).
    pub promises_issuer: bool,
    /// `id_token_signing_alg_values_supported`; empty if absent, like the next two.
    pub signing_algorithms: Vec<String>,
    /// `token_endpoint_auth_methods_supported`.
    pub client_authentications: Vec<String>,
    /// `code_challenge_methods_supported`.
    pub challenge_methods: Vec<String>,
}

/// Returns the address of the document: the configured one, or that below the issuer.
///
/// For an issuer of several tenants, the document of the first tenant stands for all.
///
/// # Errors
///
/// The issuer is missing or not an address.
pub fn discovery_url(provider: &Provider) -> Result<Url, MetadataError> {
    if let Some(configured) = &provider.endpoints.discovery {
        return Ok(configured.clone());
    }
    let issuer = match &provider.issuer {
        Some(Issuer::Exact(name)) => name.clone(),
        Some(Issuer::Tenants { template, tenants }) => {
            let first = tenants.first().ok_or(MetadataError::NoAddress)?;
            template.replace(TENANT_ID, first)
        }
        None => return Err(MetadataError::NoAddress),
    };
    let address = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
    let url = Url::parse(&address).map_err(|_| MetadataError::NoAddress)?;
    is_secure_url(&url)
        .then_some(url)
        .ok_or(MetadataError::Insecure("issuer"))
}

impl ProviderMetadata {
    /// Reads a document that was fetched for this provider.
    ///
    /// # Errors
    ///
    /// The document is of another issuer, lacks an address, or has one that is not secure.
    pub fn parse(body: &[u8], provider: &Provider) -> Result<ProviderMetadata, MetadataError> {
        let members = json::parse(body).map_err(MetadataError::NotJson)?;
        let document = MetadataDocument {
            members: &members,
            is_loopback: is_loopback(provider),
        };
        let issuer = members.get("issuer").and_then(Value::as_str);
        if !issuer.is_some_and(|issuer| is_issuer_of(provider, issuer)) {
            return Err(MetadataError::Issuer);
        }
        let Endpoints {
            discovery: _,
            authorization,
            token,
            userinfo,
            jwks,
            end_session,
            par,
            revocation,
        } = &provider.endpoints;
        let jwks = document.address("jwks_uri", jwks.as_ref())?;
        if jwks.is_none() && provider.kind == ProviderKind::Oidc {
            return Err(MetadataError::Missing("jwks_uri"));
        }
        let pushed = "pushed_authorization_request_endpoint";
        Ok(ProviderMetadata {
            authorization: document.required("authorization_endpoint", authorization.as_ref())?,
            token: document.required("token_endpoint", token.as_ref())?,
            userinfo: document.address("userinfo_endpoint", userinfo.as_ref())?,
            jwks,
            end_session: document.address("end_session_endpoint", end_session.as_ref())?,
            par: document.address(pushed, par.as_ref())?,
            revocation: document.address("revocation_endpoint", revocation.as_ref())?,
            requires_par: document.flag("require_pushed_authorization_requests")?,
            promises_issuer: document.flag("authorization_response_iss_parameter_supported")?,
            signing_algorithms: document.list("id_token_signing_alg_values_supported")?,
            client_authentications: document.list("token_endpoint_auth_methods_supported")?,
            challenge_methods: document.list("code_challenge_methods_supported")?,
        })
    }

    /// The metadata of a provider without a document, whose addresses are configured.
    ///
    /// # Errors
    ///
    /// The authorization or token endpoint is not configured.
    pub fn configured(provider: &Provider) -> Result<ProviderMetadata, MetadataError> {
        let endpoints = &provider.endpoints;
        let required = |name, url: &Option<Url>| url.clone().ok_or(MetadataError::Missing(name));
        Ok(ProviderMetadata {
            authorization: required("authorization_endpoint", &endpoints.authorization)?,
            token: required("token_endpoint", &endpoints.token)?,
            userinfo: endpoints.userinfo.clone(),
            jwks: endpoints.jwks.clone(),
            end_session: endpoints.end_session.clone(),
            par: endpoints.par.clone(),
            revocation: endpoints.revocation.clone(),
            requires_par: false,
            promises_issuer: false,
            signing_algorithms: Vec::new(),
            client_authentications: Vec::new(),
            challenge_methods: Vec::new(),
        })
    }
}

/// Whether a document may name this issuer: byte for byte the configured one. The document of several
/// tenants has the placeholder itself in it, as that of Entra does.
fn is_issuer_of(provider: &Provider, issuer: &str) -> bool {
    match &provider.issuer {
        Some(Issuer::Exact(name)) => issuer == name,
        Some(Issuer::Tenants { template, tenants }) => {
            let mut tenants = tenants.iter();
            issuer == template
                || tenants.any(|tenant| issuer == template.replace(TENANT_ID, tenant))
        }
        None => false,
    }
}

/// Whether the issuer is on loopback, so that its endpoints may be.
fn is_loopback(provider: &Provider) -> bool {
    let issuer = provider.issuer.as_ref().map(Issuer::text);
    issuer.is_some_and(|issuer| is_loopback_issuer(&issuer.replace(TENANT_ID, "tenant")))
}

#[cfg(test)]
mod tests;
