//! Discovery of an issuer's addresses by its metadata.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::metadata_document::{MetadataDocument, MetadataError, is_loopback_issuer};
use crate::http_client::{HttpClient, HttpError};
use crate::json;

/// Maximum size of a document, in bytes.
const MAX_DOCUMENT: usize = 1 << 20;
/// Path of the document of an authorization server, before that of the issuer (RFC 8414, section 3.1).
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
/// Path of the document of a provider, after that of the issuer.
const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";

/// An address in the metadata of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IssuerAddress {
    Jwks,
    Introspection,
}

/// Why an address was not discovered.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("the issuer's metadata cannot be fetched")]
    Unreachable(#[source] HttpError),
    #[error("the issuer's metadata cannot be fetched: status {0}")]
    Status(u16),
    #[error("the issuer's metadata cannot be used")]
    Unusable(#[source] MetadataError),
}

impl IssuerAddress {
    fn member(self) -> &'static str {
        match self {
            IssuerAddress::Jwks => "jwks_uri",
            IssuerAddress::Introspection => "introspection_endpoint",
        }
    }
}

/// Fetches the metadata of an issuer and returns an address in it: first as that of an authorization
/// server, then as that of a provider.
///
/// # Errors
///
/// Neither document can be fetched and has the address.
pub(super) async fn discover(
    client: &HttpClient,
    issuer: &str,
    address: IssuerAddress,
) -> Result<Url, DiscoveryError> {
    let mut last = DiscoveryError::Unusable(MetadataError::NoAddress);
    for url in document_urls(issuer).into_iter().flatten() {
        match fetch(client, url).await {
            Ok(document) => match parse(&document, issuer, address) {
                Ok(url) => return Ok(url),
                Err(error) => last = DiscoveryError::Unusable(error),
            },
            // The other document is on the same server.
            Err(DiscoveryError::Unreachable(error)) => {
                return Err(DiscoveryError::Unreachable(error));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn document_urls(issuer: &str) -> [Option<Url>; 2] {
    let of_server = Url::parse(issuer).ok().map(|mut url| {
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{AUTHORIZATION_SERVER}{path}"));
        url
    });
    let of_provider = format!("{}{OPENID_CONFIGURATION}", issuer.trim_end_matches('/'));
    [of_server, Url::parse(&of_provider).ok()]
}

async fn fetch(client: &HttpClient, url: Url) -> Result<Bytes, DiscoveryError> {
    let sent = client.send(Method::GET, url, HeaderMap::new(), Bytes::new());
    let response = sent.await.map_err(DiscoveryError::Unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(DiscoveryError::Status(response.status().as_u16()));
    }
    let body = response.read_body(MAX_DOCUMENT).await;
    body.map_err(DiscoveryError::Unreachable)
}

fn parse(body: &[u8], issuer: &str, address: IssuerAddress) -> Result<Url, MetadataError> {
    let members = json::parse(body).map_err(MetadataError::NotJson)?;
    // Byte for byte: the document of another issuer would name its keys and endpoints.
    if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(MetadataError::Issuer);
    }
    let document = MetadataDocument {
        members: &members,
        is_loopback: is_loopback_issuer(issuer),
    };
    document.required(address.member(), None)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_below_the_host_and_below_the_issuer() {
        for (issuer, server, provider) in [
            (
                "https://id.example",
                "https://id.example/.well-known/oauth-authorization-server",
                "https://id.example/.well-known/openid-configuration",
            ),
            (
                "https://id.example/",
                "https://id.example/.well-known/oauth-authorization-server",
                "https://id.example/.well-known/openid-configuration",
            ),
            (
                "https://id.example:8443/realms/a",
                "https://id.example:8443/.well-known/oauth-authorization-server/realms/a",
                "https://id.example:8443/realms/a/.well-known/openid-configuration",
            ),
        ] {
            let urls = document_urls(issuer).map(|url| url.unwrap().to_string());
            assert_eq!(urls, [server, provider]);
        }
        assert_eq!(document_urls("id"), [None, None]);
    }

    #[test]
    fn only_the_document_of_the_issuer_is_read() {
        let document = json!({
            "issuer": "https://id.example", "jwks_uri": "https://keys.example/jwks",
            "introspection_endpoint": "http://id.example/introspect",
        })
        .to_string();
        let read = |issuer, address| parse(document.as_bytes(), issuer, address);
        assert_eq!(
            read("https://id.example", IssuerAddress::Jwks)
                .unwrap()
                .as_str(),
            "https://keys.example/jwks"
        );
        assert_eq!(
            read("https://id.example/", IssuerAddress::Jwks),
            Err(MetadataError::Issuer)
        );
        let insecure = read("https://id.example", IssuerAddress::Introspection);
        assert_eq!(
            insecure,
            Err(MetadataError::Insecure("introspection_endpoint"))
        );
        let without = parse(br#"{"issuer":"a"}"#, "a", IssuerAddress::Jwks);
        assert_eq!(without, Err(MetadataError::Missing("jwks_uri")));
    }
}
