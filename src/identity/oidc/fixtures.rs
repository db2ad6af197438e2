//! A provider's settings, and a server that stands for a provider.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::auth::token::Algorithm;
use crate::settings::UpstreamTls;
use crate::settings::provider::{
    Allow, ClientAuthentication, Endpoints, Issuer, LogoutRules, Par, Provider, ProviderClaims,
    ProviderKind, RecheckOutage, ResponseMode, TokenKeeping, UserStorage, UserinfoUse,
};

/// The settings of a provider with this issuer: the file's defaults, but a shorter `timeout` and fewer
/// scopes.
pub(crate) fn provider(issuer: &str) -> Provider {
    let claim = |name: &str| vec![name.to_owned()];
    Provider {
        name: Arc::from("corp"),
        title: "corp".to_owned(),
        kind: ProviderKind::Oidc,
        issuer: Some(Issuer::Exact(issuer.to_owned())),
        endpoints: Endpoints::default(),
        client_id: "portcullis".to_owned(),
        client_auth: ClientAuthentication::SecretBasic("secret".into()),
        scopes: vec!["openid".to_owned(), "email".to_owned()],
        authorization_params: Vec::new(),
        response_mode: ResponseMode::Query,
        par: Par::Auto,
        extra_audiences: Vec::new(),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        claims: ProviderClaims {
            user: claim("sub"),
            email: claim("email"),
            email_verified: claim("email_verified"),
            name: claim("name"),
            roles: Vec::new(),
            scopes: Vec::new(),
        },
        roles_map: None,
        userinfo: UserinfoUse::Auto,
        trust_email: false,
        allow: Allow::Anyone,
        users: UserStorage::External {
            prefix: "corp:".to_owned(),
        },
        session_ttl: None,
        tokens: TokenKeeping {
            keep: false,
            recheck: None,
            on_outage: RecheckOutage::Continue,
        },
        logout: LogoutRules {
            at_provider: true,
            back_channel: true,
        },
        timeout: Duration::from_secs(2),
        tls: UpstreamTls::default(),
    }
}

/// The same provider without ID tokens, whose endpoints are at this address.
pub(crate) fn oauth2_provider(base: &str) -> Provider {
    let address = |path: &str| Url::parse(&format!("{base}{path}")).ok();
    Provider {
        kind: ProviderKind::OAuth2,
        issuer: None,
        endpoints: Endpoints {
            authorization: address("/authorize"),
            token: address("/token"),
            userinfo: address("/userinfo"),
            revocation: address("/revoke"),
            ..Endpoints::default()
        },
        ..provider(base)
    }
}
