//! Providers and what belongs to them.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::{SIGNING, Settings, parse_section, parse_with};
use crate::auth::sealing::{KeyRing, SealingKey};
use crate::identity::oidc::fixtures::provider;
use crate::routing::endpoints::OfferedEndpoints;
use crate::settings::IdentitySource;
use crate::settings::provider::{Allow, AllowLists, ClientAuthentication, EmailDomain, Provider};

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
    let expected = Provider {
        client_id: "a".to_owned(),
        client_auth: ClientAuthentication::SecretBasic("b".into()),
        scopes: ["openid", "email", "profile"].map(str::to_owned).to_vec(),
        allow: Allow::Listed(AllowLists {
            domains: vec![
                EmailDomain::Exact("example.com".to_owned()),
                EmailDomain::Subdomains("example.org".to_owned()),
            ],
            ..AllowLists::default()
        }),
        timeout: Duration::from_secs(5),
        ..provider("https://id.example.com")
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
    for (identity, passwords, users, identities) in [
        (String::new(), true, true, false),
        (format!("providers: {{ {CORP} }}"), false, false, false),
        (
            format!("builtin: {{}}, providers: {{ {CORP} }}"),
            true,
            true,
            false,
        ),
        (
            format!("{backend}, providers: {{ {CORP} }}"),
            true,
            false,
            false,
        ),
        (format!("providers: {{ {of_rows} }}"), false, true, true),
    ] {
        let settings = parse_providers(&identity);
        let api = settings.reloadable.api.unwrap();
        let expected = OfferedEndpoints {
            passwords,
            users,
            identities,
            api_keys: false,
            introspection: false,
            providers: identity.contains("providers"),
        };
        assert_eq!(api.offered, expected, "{identity}");
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
    let expected = KeyRing {
        current: expected.clone(),
        older: vec![expected],
    };
    assert_eq!(encryption.as_deref(), Some(&expected));
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

#[test]
fn secrets_are_never_in_errors_about_providers() {
    let full = format!(
        "{SIGNING}encryption: {{ key: '@a@', also: ['@b@'] }}\n\
         api: {{ public_url: 'https://@c@', return_hosts: ['@d@'] }}\n\
         identity:\n  providers:\n    corp:\n      title: '@e@'\n      issuer: 'https://@f@'\n      \
         tenants: ['@g@']\n      endpoints: {{ token: 'https://@h@' }}\n      client_id: '@i@'\n      \
         client_auth: private_key_jwt\n      client_key: {{ algorithm: ES256, key: '@j@' }}\n      \
         scopes: [openid, '@k@']\n      authorization_params: {{ max_age: '@l@' }}\n      \
         claims: {{ roles: ['@m@', '@m@'] }}\n      roles_map: {{ a: '@n@' }}\n      \
         allow: {{ emails: ['@o@'], domains: ['@p@'], groups: ['@q@', '@q@'], users: ['@r@', '@r@'] }}\n      \
         user_prefix: '@s@'\n      extra_audiences: ['@t@']\n"
    );
    let look_up = |name: &str| (name == "S").then(|| "0hunter2 \u{e9}".to_owned());
    for letter in 'a'..='t' {
        let text = full
            .replace(&format!("@{letter}@"), "${S}")
            .replace('@', "");
        assert!(text.contains("${S}"), "{letter}");
        let text = format!(
            "listeners: [{{ bind: \"127.0.0.1:8080\" }}]\nupstreams: {{ app: {{ servers: [http://a] }} }}\n\
             routes: [{{ name: app, upstream: app }}]\n{text}"
        );
        let errors = parse_with(&text, Path::new("a.yaml"), &look_up).unwrap_err();
        assert!(
            !errors.to_string().contains("hunter2"),
            "{letter}: {errors}"
        );
    }
}
