//! The credentials that a route accepts.

use crate::auth::credential::{AcceptedCredentials, CredentialType};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;

/// Resolves the types of credentials that may decide on a route.
pub(super) fn accept(
    raw: Option<&Vec<String>>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> AcceptedCredentials {
    let Some(names) = raw else {
        return AcceptedCredentials::ALL;
    };
    let mut accepted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut types = CredentialType::ALL.into_iter();
        match types.find(|known| known.as_str() == name) {
            Some(known) => accepted.push(known),
            None => {
                let known = CredentialType::ALL.iter().map(|known| known.as_str());
                let location = location.item(index);
                context.unknown_reference(&location, "kind of credential", name, known);
            }
        }
    }
    accepted.into_iter().collect()
}
