//! Settings of the gateway under test.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::session::{ClientBinding, CookieRules, OnSessionLimit, SameSite, SessionRules};
use crate::auth::token::{Key, Tokens};
use crate::routing::endpoints::OfferedEndpoints;
use crate::routing::{NameSet, RouteTable};
use crate::settings::{self, HashCost, PasswordRules, Rate, Reloadable};

pub(super) const PASSWORDS: PasswordRules = PasswordRules {
    min_length: 12,
    cost: HashCost {
        memory: 19 << 10,
        iterations: 2,
        parallelism: 1,
    },
};

fn tokens() -> Tokens {
    Tokens {
        issuer: "portcullis".to_owned(),
        audience: "portcullis".to_owned(),
        access_ttl: Duration::from_secs(900),
        refresh_ttl: Duration::from_secs(3600),
        refresh_grace: Duration::from_secs(30),
        leeway: Duration::from_secs(5),
        signing: Some(Key::hmac(None, &[7; 32]).unwrap()),
        verifying: Vec::new(),
        trusted: Vec::new(),
    }
}

fn cookie() -> CookieRules {
    CookieRules {
        name: "__Host-portcullis".to_owned(),
        secure: true,
        same_site: SameSite::Lax,
        domain: None,
        path: "/".to_owned(),
    }
}

pub(super) fn reloadable() -> Reloadable {
    let rate = |limit| Rate {
        limit,
        window: Duration::from_secs(600),
    };
    Reloadable {
        listeners: Vec::new(),
        forward_auth: None,
        admin_token: Some("0123456789abcdef".to_owned().into()),
        admin_names: Some(Vec::new()),
        tokens: Arc::new(tokens()),
        introspection: Vec::new(),
        sessions: session_rules(),
        identity: settings::Identity {
            registration_open: true,
            passwords: PASSWORDS,
            attempts_per_address: rate(100),
            failures_per_account: rate(3),
            source: settings::IdentitySource::Builtin,
            reserved_prefixes: Default::default(),
            providers: Vec::new(),
        },
        encryption: None,
        pages: Arc::default(),
        api_keys: None,
        hsts: None,
        api: Some(settings::Api {
            prefix: "/api/v1".to_owned(),
            allowed_origins: vec!["https://app.example".to_owned()],
            public_url: None,
            return_hosts: Vec::new(),
            offered: OfferedEndpoints {
                passwords: true,
                users: true,
                identities: true,
                api_keys: true,
                introspection: true,
                providers: false,
            },
        }),
        identity_header_names: NameSet::default(),
        limits: Vec::new(),
        upstreams: vec![Arc::new(orders())],
        oauth_resources: None,
        routes: RouteTable::default(),
        shutdown: settings::Shutdown {
            delay: Duration::ZERO,
            grace: Duration::ZERO,
        },
    }
}

fn session_rules() -> SessionRules {
    SessionRules {
        durable: false,
        ttl: Duration::from_secs(7200),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_per_user: 3,
        on_limit: OnSessionLimit::EvictOldest,
        cookie: cookie(),
        bind_user_agent: ClientBinding::Off,
        bind_ip: ClientBinding::Off,
    }
}

/// An upstream without servers.
fn orders() -> settings::Upstream {
    settings::Upstream {
        name: "orders".into(),
        servers: Vec::new(),
        protocol: settings::Protocol::Http1,
        host: settings::UpstreamHost::Preserve,
        tls: settings::UpstreamTls::default(),
        balance: settings::Balance::RoundRobin,
        health_check: None,
        timeouts: settings::Timeouts {
            connect: Duration::ZERO,
            read: Duration::ZERO,
            write: Duration::ZERO,
            idle: Duration::ZERO,
            stream_idle: None,
        },
        retries: 0,
    }
}
