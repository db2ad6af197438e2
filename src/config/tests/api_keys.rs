//! The section `api_keys`.

use std::time::Duration;

use super::*;
use crate::settings::ApiKeys;

fn parse_keys(section: &str) -> Result<Settings, Diagnostics> {
    parse_section(&format!("{SIGNING}api_keys: {section}"))
}

#[test]
fn keys_are_off_by_default() {
    let bare = parse_section(SIGNING).unwrap().reloadable;
    assert_eq!(bare.api_keys, None);
    let all = "{ prefix: acme_live, header: X-API-Key, self_service: true, max_per_owner: 3, \
               max_ttl: 90d }";
    let expected = ApiKeys {
        prefix: "acme_live".to_owned(),
        header: Some("x-api-key".parse().unwrap()),
        self_service: true,
        max_per_owner: 3,
        max_ttl: Some(Duration::from_secs(90 * 86_400)),
    };
    let parsed = parse_keys(all).unwrap().reloadable.api_keys;
    assert_eq!(parsed, Some(expected));
}

#[test]
fn header_of_keys_has_no_other_meaning() {
    for (header, accepted) in [
        ("X-API-Key", true),
        ("Api-Key", true),
        ("X-Auth-Token", true),
        ("Authorization", false),
        ("Proxy-Authorization", false),
        ("Cookie", false),
        ("Connection", false),
        ("Transfer-Encoding", false),
        ("Host", false),
        ("Origin", false),
        ("Accept-Language", false),
        ("Content-Type", false),
        ("Sec-Fetch-Site", false),
        ("If-None-Match", false),
        ("X-Forwarded-For", false),
        ("X-Forwarded-User", false),
        ("X-Original-URL", false),
        ("X-Real-IP", false),
        ("X-Portcullis-Key", false),
        ("X-Request-ID", false),
        // Those of the identity headers, which clients cannot send, also where they are off.
        ("X-User-Id", false),
        ("X-Session-ID", false),
        // Requests lose fields with such names.
        ("X_API_Key", false),
        ("X API Key", false),
    ] {
        let parsed = parse_keys(&format!("{{ header: \"{header}\" }}"));
        assert_eq!(parsed.is_ok(), accepted, "{header}");
    }
}

#[test]
fn users_create_keys_where_the_database_has_users() {
    const UPSTREAM: &str =
        "identity: { upstream: { login: \"POST http://127.0.0.1:3000/login\", user_id: /id } }";
    for (rest, accepted) in [("", true), ("api: null", false), (UPSTREAM, false)] {
        let parsed = parse_section(&format!(
            "{SIGNING}api_keys: {{ self_service: true }}\n{rest}"
        ));
        assert_eq!(parsed.is_ok(), accepted, "{rest}");
        if let Ok(settings) = parsed {
            assert!(settings.reloadable.api.unwrap().offered.api_keys);
        }
    }
    let closed = parse_keys("{}").unwrap().reloadable;
    assert!(!closed.api.unwrap().offered.api_keys);
}

#[test]
fn services_have_a_prefix_of_their_own() {
    const ISSUER: &str = "issuer: a, audience: b, jwks_url: https://a/k, user_prefix";
    for (prefix, accepted) in [
        ("", true),
        ("corp:", true),
        ("s", false),
        ("service:x", false),
    ] {
        let tokens = SIGNING.replace(
            "tokens: {",
            &format!("tokens: {{ trusted_issuers: [{{ {ISSUER}: \"{prefix}\" }}],"),
        );
        let parsed = parse_section(&format!("{tokens}api_keys: {{}}"));
        assert_eq!(parsed.is_ok(), accepted, "{prefix}");
        if let Ok(settings) = parsed {
            let reserved = &settings.reloadable.identity.reserved_prefixes;
            assert!(reserved.cover("service:billing"));
        }
    }
    let without = parse_section(SIGNING).unwrap().reloadable;
    assert!(!without.identity.reserved_prefixes.cover("service:billing"));
}
