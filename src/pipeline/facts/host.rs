//! The host that a request names.

use http::{HeaderValue, Uri};

use crate::rejection::Refusal;
use crate::routing::host_of;

/// Returns the `Host` or the authority, and the name in it. `name` is given for an HTTP/1.1 head,
/// which is parsed already.
///
/// # Errors
/// 400 where there is no host, or no valid one.
pub(crate) fn read(
    target: &Uri,
    field: Option<&HeaderValue>,
    name: Option<String>,
) -> Result<(HeaderValue, String), Refusal> {
    let bad = Refusal::BadRequest;
    let host = match (field, target.authority()) {
        (Some(host), _) => host.clone(),
        (None, Some(authority)) => HeaderValue::from_str(authority.as_str()).map_err(|_| bad)?,
        (None, None) => return Err(bad),
    };
    let name = match name {
        Some(name) => name,
        None => {
            let text = host.to_str().map_err(|_| bad)?;
            host_of(text).map_err(|_| bad)?.into_owned()
        }
    };
    Ok((host, name))
}
