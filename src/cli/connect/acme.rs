//! Connection tests of certificate authorities.

use crate::gateway::acme::{AcmeDirectory, probe};
use crate::settings::acme::AcmeSettings;
use crate::store::Severity;

/// Fetches the directory of an authority. One that is down now may be up later, so this is only a
/// warning.
pub(super) async fn inspect(settings: &AcmeSettings) -> (Severity, String) {
    let name = format!("acme {}", settings.directory);
    match probe(settings).await {
        Ok(directory) => {
            let (severity, text) = describe(settings, &directory);
            (severity, format!("{name}: {text}"))
        }
        Err(error) => {
            let severity = match error.is_temporary() {
                true => Severity::Warning,
                false => Severity::Error,
            };
            (
                severity,
                format!("{name}: {:#}", anyhow::Error::from(error)),
            )
        }
    }
}

fn describe(settings: &AcmeSettings, directory: &AcmeDirectory) -> (Severity, String) {
    let meta = &directory.meta;
    if meta.external_account_required && settings.external_account.is_none() {
        let text = "it requires \"external_account\"";
        return (Severity::Error, text.to_owned());
    }
    let terms = meta.terms_of_service.as_deref();
    // Text of another party.
    let terms = terms.map(|url| url.escape_debug().take(200).collect::<String>());
    let text = match terms {
        Some(terms) => format!("directory fetched; accepted terms of service: {terms}"),
        None => "directory fetched".to_owned(),
    };
    (Severity::Ok, text)
}
