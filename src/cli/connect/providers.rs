//! Connection tests of providers, and the addresses to register at them.

use crate::identity::oidc::{ProviderProbe, probe};
use crate::routing::endpoints::SIGN_OUT_PAGE;
use crate::settings::provider::{ClientAuthentication, Provider, ProviderKind};
use crate::settings::{Api, Settings};
use crate::store::Severity;

/// Method of authentication that a provider offers that names none (OpenID Connect Discovery,
/// section 3).
const DEFAULT_AUTHENTICATION: &str = "client_secret_basic";

/// Fetches the metadata and keys of a provider, and compares what it offers with its settings. A
/// provider that is down now may be up later, so this is only a warning.
pub(super) async fn inspect(provider: &Provider) -> Vec<(Severity, String)> {
    let name = format!("provider {}", provider.name);
    match probe(provider).await {
        Ok(found) => {
            let mut report = vec![(
                Severity::Ok,
                format!("{name}: {}", describe(provider, &found)),
            )];
            let differences = differences(provider, &found).into_iter();
            report
                .extend(differences.map(|(severity, text)| (severity, format!("{name}: {text}"))));
            report
        }
        Err(error) => {
            let severity = match error.is_temporary() {
                true => Severity::Warning,
                false => Severity::Error,
            };
            let error = anyhow::Error::from(error);
            vec![(severity, format!("{name}: {error:#}"))]
        }
    }
}

fn describe(provider: &Provider, found: &ProviderProbe) -> String {
    match (found.keys, provider.kind) {
        (Some(1), _) => "metadata fetched, 1 usable key".to_owned(),
        (Some(keys), _) => format!("metadata fetched, {keys} usable keys"),
        (None, ProviderKind::GitHub) => "the endpoints of GitHub's API are used".to_owned(),
        (None, _) => "the configured endpoints are used".to_owned(),
    }
}

/// Returns what the settings require and the provider does not offer, as far as its metadata says.
fn differences(provider: &Provider, found: &ProviderProbe) -> Vec<(Severity, String)> {
    let metadata = &found.metadata;
    let mut all = Vec::new();
    if provider.kind != ProviderKind::Oidc {
        return all;
    }
    let offered = &metadata.signing_algorithms;
    let is_offered = |name: &str| offered.iter().any(|one| one == name);
    let mut accepted = provider.algorithms.iter();
    if !offered.is_empty() && !accepted.any(|algorithm| is_offered(algorithm.as_str())) {
        let offered = offered.join(", ");
        let text = format!(
            "it signs ID tokens with {offered}, none of which is in \"algorithms\"; every sign-in \
             would fail"
        );
        all.push((Severity::Error, text));
    }
    let offered = &metadata.client_authentications;
    let method = provider.client_auth.as_str();
    let is_offered = match offered.is_empty() {
        true => method == DEFAULT_AUTHENTICATION,
        false => offered.iter().any(|one| one == method),
    };
    if !is_offered && !matches!(provider.client_auth, ClientAuthentication::None) {
        let offered = match offered.is_empty() {
            true => DEFAULT_AUTHENTICATION.to_owned(),
            false => offered.join(", "),
        };
        let text = format!("it offers client_auth {offered}, but not {method}");
        all.push((Severity::Warning, text));
    }
    if !metadata.challenge_methods.iter().any(|one| one == "S256") {
        let text = "it does not say that it supports PKCE with S256, which the gateway always uses";
        all.push((Severity::Warning, text.to_owned()));
    }
    all
}

/// Returns the addresses that must be registered at a provider, one a line.
pub(super) fn addresses(settings: &Settings, provider: &Provider) -> Vec<String> {
    let Some(api) = &settings.reloadable.api else {
        return Vec::new();
    };
    let base = base(settings, api);
    let name = &provider.name;
    let mut all = vec![format!("redirect URI: {base}/auth/callback/{name}")];
    if provider.kind == ProviderKind::Oidc && provider.logout.at_provider {
        all.push(format!("post-logout redirect URI: {base}{SIGN_OUT_PAGE}"));
    }
    if provider.kind == ProviderKind::Oidc && provider.logout.back_channel {
        all.push(format!(
            "back-channel logout URI: {base}/auth/backchannel-logout/{name}"
        ));
    }
    if let ClientAuthentication::PrivateKey(_) = provider.client_auth {
        all.push(format!("key set of the client: {base}/auth/jwks/{name}"));
    }
    if api.public_url.is_none() {
        let mut binds = settings
            .boot
            .listeners
            .iter()
            .filter_map(|it| it.bind.tcp());
        let own = binds.find(|bind| !bind.ip().is_unspecified());
        let example = own.map_or(String::new(), |bind| format!(", such as {bind},"));
        all.push(format!(
            "the public host is unknown: HOST is that of each request{example} because \
             \"api.public_url\" is null"
        ));
    }
    let lines = all.into_iter();
    lines
        .map(|line| format!("provider {name}: {line}"))
        .collect()
}

/// The address of the endpoints as browsers see it. Cookies that are not secure are for plain HTTP.
fn base(settings: &Settings, api: &Api) -> String {
    let origin = match &api.public_url {
        Some(url) => url.as_str(),
        None if settings.reloadable.sessions.cookie.secure => "https://HOST",
        None => "http://HOST",
    };
    format!("{origin}{}", api.prefix)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::identity::oidc::ProviderMetadata;
    use crate::identity::oidc::fixtures::provider;

    fn found(algorithms: &[&str], authentications: &[&str], challenges: &[&str]) -> Vec<String> {
        let provider = provider("https://id.example");
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let document = serde_json::json!({
            "issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/a",
            "token_endpoint": "https://id.example/t",
            "jwks_uri": "https://id.example/k",
        });
        let metadata = ProviderMetadata::parse(document.to_string().as_bytes(), &provider);
        let mut found = ProviderProbe {
            metadata: metadata.unwrap(),
            keys: Some(1),
        };
        found.metadata.signing_algorithms = texts(algorithms);
        found.metadata.client_authentications = texts(authentications);
        found.metadata.challenge_methods = texts(challenges);
        let all = differences(&provider, &found).into_iter();
        all.map(|(severity, text)| format!("{severity:?} {text}"))
            .collect()
    }

    #[test]
    fn differences_between_settings_and_metadata_are_reported() {
        assert!(found(&["RS256"], &["client_secret_basic"], &["S256"]).is_empty());
        assert!(found(&[], &[], &["plain", "S256"]).is_empty());
        for (found, expected) in [
            (
                found(&["HS256", "RS512"], &[], &["S256"]),
                "Error it signs ID tokens with HS256, RS512, none of which is in \"algorithms\"; \
                 every sign-in would fail",
            ),
            (
                found(&[], &["private_key_jwt"], &["S256"]),
                "Warning it offers client_auth private_key_jwt, but not client_secret_basic",
            ),
            (
                found(&[], &[], &["plain"]),
                "Warning it does not say that it supports PKCE with S256, which the gateway \
                 always uses",
            ),
        ] {
            assert_eq!(found, [expected]);
        }
    }
}
