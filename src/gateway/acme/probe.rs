//! Connection test of a certificate authority.

use serde::Deserialize;

use super::authority::{Authority, AuthorityError};
use crate::settings::acme::AcmeSettings;

/// What a directory says (RFC 8555, section 7.1.1), as far as an operator needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcmeDirectory {
    #[serde(rename = "newNonce")]
    _new_nonce: String,
    #[serde(rename = "newAccount")]
    _new_account: String,
    #[serde(rename = "newOrder")]
    _new_order: String,
    #[serde(default)]
    pub(crate) meta: DirectoryMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DirectoryMeta {
    pub(crate) terms_of_service: Option<String>,
    pub(crate) external_account_required: bool,
}

/// Fetches a directory.
///
/// # Errors
/// It cannot be fetched, or is none.
pub(crate) async fn probe(settings: &AcmeSettings) -> Result<AcmeDirectory, AuthorityError> {
    let body = Authority::new(settings)?.directory().await?;
    serde_json::from_slice(&body).map_err(|_| AuthorityError::NotADirectory)
}
