//! Tests of the whole configuration pipeline, from text to settings.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use url::Url;

use super::*;
use crate::auth::sealing::{KeyRing, SealingKey};
use crate::auth::token::Algorithm;
use crate::routing::endpoints::OfferedEndpoints;
use crate::settings::provider::{
    Allow, AllowLists, ClientAuthentication, EmailDomain, Endpoints, Issuer, LogoutRules, Par,
    Provider, ProviderClaims, ProviderKind, RecheckOutage, ResponseMode, TokenKeeping, UserStorage,
    UserinfoUse,
};
use crate::settings::{Engine, IdentitySource, UpstreamTls};

const SMALL: &str = include_str!("../../config/portcullis.yaml");
const FULL: &str = include_str!("../../config/portcullis.full.yaml");

fn settings(text: &str) -> Result<Settings, Diagnostics> {
    parse_with(text, Path::new("/etc/portcullis/a.yaml"), &|_| None)
}

fn parse_section(section: &str) -> Result<Settings, Diagnostics> {
    settings(&format!(
        "listeners: [{{ bind: \"127.0.0.1:8080\" }}]\nupstreams: {{ app: {{ servers: [http://a] }} }}\n\
         routes: [{{ name: app, upstream: app }}]\n{section}"
    ))
}

const SIGNING: &str =
    "tokens: { signing: { algorithm: HS256, secret: 0123456789abcdef0123456789abcdef } }\n";

#[test]
fn defaults_are_those_of_the_full_file() {
    let full = settings(FULL).unwrap();
    let bare = parse_section(SIGNING).unwrap();
    assert_eq!(full.boot, bare.boot);
    assert_eq!(full.reloadable.sessions, bare.reloadable.sessions);
    assert_eq!(full.reloadable.identity, bare.reloadable.identity);
    assert_eq!(full.reloadable.api, bare.reloadable.api);
    assert_eq!(
        full.reloadable.identity_header_names,
        bare.reloadable.identity_header_names
    );
    let headers = |settings: &Settings| {
        let routes = settings.reloadable.routes.routes();
        Arc::clone(&routes.first().unwrap().identity_headers)
    };
    assert_eq!(headers(&full), headers(&bare));
    assert_eq!(full.reloadable.shutdown, bare.reloadable.shutdown);
    assert_eq!(
        full.reloadable.tokens.access_ttl,
        bare.reloadable.tokens.access_ttl
    );
    let (full, bare) = (&full.reloadable.upstreams[0], &bare.reloadable.upstreams[0]);
    assert_eq!(full.timeouts, bare.timeouts);
    assert_eq!(full.retries, bare.retries);
}

#[test]
fn cookie_name_follows_its_attributes() {
    for (cookie, expected) in [
        ("{}", "__Host-portcullis"),
        ("{ secure: false }", "portcullis"),
        ("{ domain: .Example.com }", "portcullis"),
        ("{ path: /app }", "portcullis"),
        ("{ name: sid }", "sid"),
        ("{ name: __Host-sid }", "__Host-sid"),
    ] {
        let section = format!("{SIGNING}sessions: {{ cookie: {cookie} }}");
        assert_eq!(
            parse_section(&section)
                .unwrap()
                .reloadable
                .sessions
                .cookie
                .name,
            expected,
            "{cookie}"
        );
    }
}

#[test]
fn limits_are_accepted_up_to_the_exact_bound() {
    for (limit, accepted) in [
        (20_000_000, true),
        (104_249_991, true),
        (104_249_992, false),
    ] {
        let limits = format!("limits: {{ a: {{ limit: {limit}, window: 24h, key: ip }} }}");
        let settings = parse_section(&format!("{SIGNING}{limits}"));
        assert_eq!(settings.is_ok(), accepted, "{limit}");
    }
}

#[test]
fn redis_credentials_are_read_from_the_url() {
    use secrecy::ExposeSecret;
    for url in [
        "redis://ann:p%40ss@cache.internal:6380/3",
        "rediss+sentinel://ann:p%40ss@a,b/m/3",
    ] {
        let settings = parse_section(&format!("{SIGNING}store: {{ url: \"{url}\" }}")).unwrap();
        let Engine::Redis(address) = settings.boot.store.engine else {
            unreachable!("{url}")
        };
        assert_eq!(address.username.as_deref(), Some("ann"), "{url}");
        let password = address.password.as_ref().unwrap();
        assert_eq!(password.expose_secret(), "p@ss", "{url}");
        assert_eq!(address.database, 3, "{url}");
        assert_eq!(address.tls.is_some(), url.starts_with("rediss"), "{url}");
    }
}

#[test]
fn foreign_tokens_only_need_no_signing_key() {
    let issuers =
        "tokens: { trusted_issuers: [{ issuer: a, audience: b, jwks_url: https://a/k }] }\n";
    for api in ["", "api: null"] {
        let settings = parse_section(&format!("{issuers}{api}")).unwrap();
        assert!(settings.reloadable.tokens.signing.is_none() && settings.reloadable.api.is_none());
    }
    // With explicit endpoints, a signing key is required for sign-in.
    assert!(parse_section(&format!("{issuers}api: {{ prefix: /gate }}")).is_err());
}

#[test]
fn secret_files_are_read_and_watched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("secret"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    let text = SMALL.replace(
        "secret: ${JWT_SECRET:-development-only-secret-that-everybody-knows}",
        "secret_file: secret",
    );
    let settings = parse_with(&text, &folder.path().join("a.yaml"), &|_| None).unwrap();
    assert_eq!(settings.watched, [folder.path().join("secret")]);
    let short = text.replace("secret_file: secret", "secret_file: missing");
    let errors = parse_with(&short, &folder.path().join("a.yaml"), &|_| None).unwrap_err();
    assert_eq!(errors.list.len(), 1, "{errors}");
}

#[test]
fn secrets_are_never_in_error_messages() {
    let secret = "0hunter2";
    let look_up = |name: &str| (name == "S").then(|| secret.to_owned());
    for (old, new) in [
        ("secret: ${JWT_SECRET", "secret: ${S}#${JWT_SECRET"),
        ("token: null  ", "token: ${S}"),
        ("url: memory", "url: ${S}"),
        ("url: memory", "url: redis://:${S}@:x"),
        ("same_site: lax", "same_site: ${S}"),
        ("grace: 25s", "grace: ${S}"),
        ("upstream: orders ", "upstream: ${S} "),
        ("limits: [per-address, per-user]", "limits: [\"${S}\"]"),
        ("- name: orders ", "- name: ${S} "),
        ("bind: 127.0.0.1:8080", "bind: ${S}"),
        ("http://127.0.0.1:3000 ", "http://a:${S}@b "),
        ("host: null", "host: a b${S}"),
        ("prefix: /orders", "prefix: ${S}"),
        ("methods: []", "methods: [\"${S}\"]"),
        ("origins: [https://app.example.com]", "origins: [\"${S}\"]"),
        ("url: sqlite:portcullis.db", "url: ${S}"),
        ("window: 1m  ", "window: ${S}"),
        ("key: ip ", "key: ${S} "),
        ("user: X-User-Id", "user: X ${S}"),
        ("prefix: /api/v1", "prefix: ${S}"),
    ] {
        assert!(FULL.contains(old), "{old}");
        let text = FULL.replace(old, new);
        if let Err(errors) = parse_with(&text, Path::new("a.yaml"), &look_up) {
            let message = errors.to_string();
            assert!(!message.contains("hunter2"), "{new}: {message}");
        }
    }
}

fn parse_providers(identity: &str) -> Settings {
    parse_section(&format!("{SIGNING}identity: {{ {identity} }}")).unwrap()
}

const CORP: &str = "corp: { issuer: \"https://id.example.com\", client_id: a, client_secret: b, \
                    allow: { domains: [Example.com, \"*.example.org\"] } }";

#[test]
fn provider_has_the_documented_defaults() {
    let settings = parse_providers(&format!("providers: {{ {CORP} }}"));
    let identity = &settings.reloadable.identity;
    let corp = identity.provider("corp").unwrap();
    let texts = |list: &[&str]| {
        list.iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let expected = Provider {
        name: "corp".into(),
        title: "corp".to_owned(),
        kind: ProviderKind::Oidc,
        issuer: Some(Issuer::Exact("https://id.example.com".to_owned())),
        endpoints: Endpoints::default(),
        client_id: "a".to_owned(),
        client_auth: ClientAuthentication::SecretBasic("b".into()),
        scopes: texts(&["openid", "email", "profile"]),
        authorization_params: Vec::new(),
        response_mode: ResponseMode::Query,
        par: Par::Auto,
        extra_audiences: Vec::new(),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        claims: ProviderClaims {
            user: texts(&["sub"]),
            email: texts(&["email"]),
            email_verified: texts(&["email_verified"]),
            name: texts(&["name"]),
            roles: Vec::new(),
            scopes: Vec::new(),
        },
        roles_map: None,
        userinfo: UserinfoUse::Auto,
        trust_email: false,
        allow: Allow::Listed(AllowLists {
            domains: vec![
                EmailDomain::Exact("example.com".to_owned()),
                EmailDomain::Subdomains("example.org".to_owned()),
            ],
            ..AllowLists::default()
        }),
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
        timeout: Duration::from_secs(5),
        tls: UpstreamTls::default(),
    };
    assert_eq!(**corp, expected);
}

#[test]
fn github_is_filled_in() {
    let github = "kind: github, client_id: a, client_secret: b, allow: { groups: [\"org:ACME\"] }";
    let settings = parse_providers(&format!("providers: {{ github: {{ {github} }} }}"));
    let github = &settings.reloadable.identity.providers[0];
    let userinfo = github.endpoints.userinfo.as_ref().map(Url::as_str);
    assert_eq!(userinfo, Some("https://api.github.com/user"));
    assert_eq!(github.issuer, None);
    assert_eq!(github.scopes, ["read:user", "user:email", "read:org"]);
    assert_eq!(github.claims.user, ["id"]);
    assert_eq!(github.claims.roles, ["groups"]);
}

#[test]
fn providers_are_in_the_order_of_the_file() {
    let named = |name: &str| {
        format!(
            "{name}: {{ issuer: \"https://{name}.example\", client_id: a, client_auth: none, allow: anyone }}"
        )
    };
    let all = ["b", "c", "a"].map(named).join(", ");
    let settings = parse_providers(&format!("providers: {{ {all} }}"));
    let providers = &settings.reloadable.identity.providers;
    let names: Vec<&str> = providers.iter().map(|provider| &*provider.name).collect();
    assert_eq!(names, ["b", "c", "a"]);
}

#[test]
fn passwords_exist_beside_providers_only_where_their_source_is_written() {
    let of_rows = CORP.replace("] } }", "] }, users: database }");
    let backend = "upstream: { login: \"POST http://127.0.0.1:1/login\", user_id: /id }";
    for (identity, passwords, users) in [
        (String::new(), true, true),
        (format!("providers: {{ {CORP} }}"), false, false),
        (
            format!("builtin: {{}}, providers: {{ {CORP} }}"),
            true,
            true,
        ),
        (format!("{backend}, providers: {{ {CORP} }}"), true, false),
        (format!("providers: {{ {of_rows} }}"), false, true),
    ] {
        let settings = parse_providers(&identity);
        let api = settings.reloadable.api.unwrap();
        assert_eq!(
            api.offered,
            OfferedEndpoints { passwords, users },
            "{identity}"
        );
        let has_none = settings.reloadable.identity.source == IdentitySource::NoPasswords;
        assert_eq!(has_none, !passwords, "{identity}");
    }
}

#[test]
fn prefix_may_be_empty_for_the_only_source_and_shared_with_its_issuer() {
    let bare = CORP.replace("client_id: a", "client_id: a, user_prefix: \"\"");
    assert!(parse_section(&format!("{SIGNING}identity: {{ providers: {{ {bare} }} }}")).is_ok());
    let beside = format!("{SIGNING}identity: {{ builtin: {{}}, providers: {{ {bare} }} }}");
    assert!(parse_section(&beside).is_err());
    for (issuer, accepted) in [
        ("https://id.example.com", true),
        ("https://other.example", false),
    ] {
        let trusted = format!(
            "trusted_issuers: [{{ issuer: \"{issuer}\", jwks_url: \"https://a/k\", audience: a, user_prefix: \"corp:\" }}]"
        );
        let tokens = SIGNING.replace(" } }", &format!(" }}, {trusted} }}"));
        let section = format!("{tokens}identity: {{ providers: {{ {CORP} }} }}");
        assert_eq!(parse_section(&section).is_ok(), accepted, "{issuer}");
    }
}

#[test]
fn encryption_keys_are_read() {
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    let section = format!("{SIGNING}encryption: {{ key: {key}=, also: [{key}] }}");
    let encryption = parse_section(&section).unwrap().reloadable.encryption;
    let expected = SealingKey::new(*b"0123456789abcdef0123456789abcdef");
    assert_eq!(
        encryption,
        Some(KeyRing {
            current: expected.clone(),
            older: vec![expected]
        })
    );
}

#[test]
fn limits_of_sign_ins_may_stand_above_their_source() {
    let limits = "sign_in_limits: { attempts_per_address: { limit: 7, window: 1m } }";
    for identity in [limits.to_owned(), format!("builtin: {{ {limits} }}")] {
        let identity = parse_providers(&identity).reloadable.identity;
        assert_eq!(identity.attempts_per_address.limit, 7);
        assert_eq!(identity.failures_per_account.limit, 10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A mangled file results in settings or in errors with positions within it.
    #[test]
    fn mangled_files_are_handled(edits in proptest::collection::vec(
        (any::<prop::sample::Index>(), 0..12usize, "[ -~\\n\u{e9}]{0,6}|: |- |null|\\[\\]|\\{\\}|\\$\\{|\\*a|&a |!!", any::<bool>()), 1..6))
    {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, remove, insert, duplicate) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + remove).min(text.len());
            let removed: Vec<char> = text.splice(at..end, insert.chars()).collect();
            if duplicate {
                text.splice(at..at, removed);
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = settings(&text) {
            prop_assert!(!errors.list.is_empty());
            for error in errors.list {
                prop_assert!(error.position.line >= 1 && error.position.line <= text.lines().count() + 2);
                prop_assert!(error.position.column >= 1);
            }
        }
    }

    /// A value of the wrong type anywhere never causes a panic.
    #[test]
    fn odd_values_are_handled(line in any::<prop::sample::Index>(), value in "null|\\[\\]|\\{\\}|true|-1|1e99|\"\"|\\[\\[\\]\\]|\\{a: b\\}|text|99999999999999999999|9007199254740993") {
        let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
        let index = line.index(lines.len());
        let changed = lines[index].split_once(": ").map(|(key, _)| format!("{key}: {value}"));
        if let Some(changed) = changed {
            lines[index] = changed;
        }
        let _ = settings(&lines.join("\n"));
    }
}
