//! The host that a request names.

use http::{HeaderValue, Uri};

use crate::rejection::Refusal;
use crate::routing::host_of;

/// Returns the `Host` or the authority, and the name in it.
///
/// # Errors
/// 400 where there is no host, or no valid one.
pub(crate) fn read(
    target: &Uri,
    field: Option<&HeaderValue>,
) -> Result<(HeaderValue, String), Refusal> {
    let bad = Refusal::BadRequest;
    let host = match (field, target.authority()) {
        (Some(host), _) => host.clone(),
        (None, Some(authority)) => HeaderValue::from_str(authority.as_str()).map_err(|_| bad)?,
        (None, None) => return Err(bad),
    };
    let text = host.to_str().map_err(|_| bad)?;
    let name = host_of(text).map_err(|_| bad)?.into_owned();
    Ok((host, name))
}
