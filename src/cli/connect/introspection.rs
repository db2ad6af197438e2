//! Connection tests of introspection endpoints.

use crate::issuers::introspection::{IntrospectionProbe, probe};
use crate::settings::introspection::IntrospectionEntry;
use crate::store::Severity;

/// Sends a made-up token to an endpoint. One that is down now may be up later, so this is only a
/// warning.
pub(super) async fn inspect(entry: &IntrospectionEntry) -> (Severity, String) {
    let name = format!("introspection {}", entry.rules.name);
    match probe(entry).await {
        IntrospectionProbe::Inactive => (
            Severity::Ok,
            format!("{name}: a made-up token is not active, as expected"),
        ),
        IntrospectionProbe::Active => (
            Severity::Error,
            format!("{name}: a made-up token is active; the endpoint would accept any token"),
        ),
        IntrospectionProbe::Failed(error) => {
            let severity = match error.is_temporary() {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let error = anyhow::Error::from(error);
            (severity, format!("{name}: {error:#}"))
        }
    }
}
