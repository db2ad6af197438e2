//! Tests of the whole configuration pipeline, from text to settings.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod api_keys;
mod providers;

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::settings::{Engine, Settings};

const SMALL: &str = include_str!("../../../config/portcullis.yaml");
const FULL: &str = include_str!("../../../config/portcullis.full.yaml");

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
    let defaults = "api_keys: {}\nforward_auth: { trusted_proxies: [127.0.0.1] }";
    let bare = parse_section(&format!("{SIGNING}{defaults}")).unwrap();
    assert_eq!(full.boot, bare.boot);
    assert_eq!(full.reloadable.sessions, bare.reloadable.sessions);
    assert_eq!(full.reloadable.identity, bare.reloadable.identity);
    assert_eq!(full.reloadable.api, bare.reloadable.api);
    assert_eq!(full.reloadable.api_keys, bare.reloadable.api_keys);
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
    let path = folder.path().join("a.yaml");
    let (outcome, files) = load::read(&text, &path, &|_| None, Purpose::Serve);
    assert!(outcome.is_ok());
    let watched: Vec<_> = files.paths().collect();
    assert_eq!(watched, [&folder.path().join("secret")]);
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
