//! Members of the metadata of an issuer (RFC 8414; OpenID Connect Discovery 1.0, section 3).

use serde_json::{Map, Value};
use url::Url;

use super::is_secure_url;
use crate::json;

/// Reason why metadata cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("the document is invalid")]
    NotJson(#[source] json::ParseError),
    #[error("`issuer` of the document is not the configured one")]
    Issuer,
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` has a wrong type")]
    WrongType(&'static str),
    #[error("`{0}` is neither https nor, for an issuer on loopback, http on loopback")]
    Insecure(&'static str),
    #[error("the issuer is not an address")]
    NoAddress,
}

/// A document whose members are read by type.
pub(crate) struct MetadataDocument<'a> {
    pub(crate) members: &'a Map<String, Value>,
    /// Whether the issuer is on loopback, so that its endpoints may be.
    pub(crate) is_loopback: bool,
}

/// Whether an issuer is on loopback.
pub(crate) fn is_loopback_issuer(issuer: &str) -> bool {
    Url::parse(issuer).is_ok_and(|mut url| {
        // Plain HTTP is secure on loopback only.
        url.scheme() == "http" || (url.set_scheme("http").is_ok() && is_secure_url(&url))
    })
}

impl MetadataDocument<'_> {
    fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn required(
        &self,
        name: &'static str,
        own: Option<&Url>,
    ) -> Result<Url, MetadataError> {
        let address = self.address(name, own)?;
        address.ok_or(MetadataError::Missing(name))
    }

    /// Returns an address; one that is configured replaces the document's.
    pub(crate) fn address(
        &self,
        name: &'static str,
        own: Option<&Url>,
    ) -> Result<Option<Url>, MetadataError> {
        if let Some(own) = own {
            return Ok(Some(own.clone()));
        }
        let Some(value) = self.member(name) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or(MetadataError::WrongType(name))?;
        let url = Url::parse(text).map_err(|_| MetadataError::WrongType(name))?;
        let is_allowed = is_secure_url(&url) && (url.scheme() == "https" || self.is_loopback);
        let is_plain = url.username().is_empty() && url.password().is_none();
        if !is_allowed || !is_plain || url.fragment().is_some() {
            return Err(MetadataError::Insecure(name));
        }
        Ok(Some(url))
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, MetadataError> {
        match self.member(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(MetadataError::WrongType(name)),
        }
    }

    pub(crate) fn list(&self, name: &'static str) -> Result<Vec<String>, MetadataError> {
        let texts = match self.member(name) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => {
                let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
                texts.collect()
            }
            Some(_) => None,
        };
        texts.ok_or(MetadataError::WrongType(name))
    }
}
