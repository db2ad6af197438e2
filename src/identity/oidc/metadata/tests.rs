#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::*;
use crate::identity::oidc::fixtures::provider;

fn document() -> Value {
    json!({
        "issuer": "https://id.example/realm",
        "authorization_endpoint": "https://id.example/authorize",
        "token_endpoint": "https://id.example/token",
        "jwks_uri": "https://keys.example/jwks",
        "userinfo_endpoint": "https://id.example/userinfo",
    })
}

fn exact(issuer: &str) -> Provider {
    Provider {
        issuer: Some(Issuer::Exact(issuer.to_owned())),
        ..provider("https://unused.example")
    }
}

fn error(provider: &Provider, name: &str, value: Value) -> Option<String> {
    let mut document = document();
    document[name] = value;
    let result = ProviderMetadata::parse(document.to_string().as_bytes(), provider);
    result.err().map(|error| error.to_string())
}

#[test]
fn issuer_is_compared_byte_for_byte() {
    let provider = exact("https://id.example/realm");
    for (issuer, is_same) in [
        ("https://id.example/realm", true),
        ("https://id.example/realm/", false),
        ("https://ID.example/realm", false),
        ("https://id.example:443/realm", false),
        ("https://id.example/re%61lm", false),
        ("", false),
    ] {
        assert_eq!(
            error(&provider, "issuer", json!(issuer)).is_none(),
            is_same,
            "{issuer}"
        );
    }
    for value in [json!(null), json!(["https://id.example/realm"]), json!(1)] {
        assert!(error(&provider, "issuer", value).is_some());
    }
}

#[test]
fn document_of_tenants_names_the_template_or_a_tenant() {
    let tenants = Issuer::Tenants {
        template: "https://id.example/{tenantid}/v2".to_owned(),
        tenants: vec!["a".to_owned(), "b".to_owned()],
    };
    let provider = Provider {
        issuer: Some(tenants),
        ..provider("https://unused.example")
    };
    for (issuer, is_same) in [
        ("https://id.example/{tenantid}/v2", true),
        ("https://id.example/a/v2", true),
        ("https://id.example/b/v2", true),
        ("https://id.example/c/v2", false),
        ("https://id.example//v2", false),
    ] {
        assert_eq!(
            error(&provider, "issuer", json!(issuer)).is_none(),
            is_same,
            "{issuer}"
        );
    }
    let url = discovery_url(&provider).unwrap();
    assert_eq!(
        url.as_str(),
        "https://id.example/a/v2/.well-known/openid-configuration"
    );
}

#[test]
fn addresses_are_https_or_loopback_for_an_issuer_on_loopback() {
    let remote = exact("https://id.example/realm");
    for (address, is_allowed) in [
        ("https://other.example/x?tenant=1", true),
        ("http://id.example/x", false),
        ("http://127.0.0.1/x", false),
        ("http://localhost/x", false),
        ("https://user@id.example/x", false),
        ("https://user:secret@id.example/x", false),
        ("https://id.example/x#fragment", false),
        ("file:///etc/passwd", false),
        ("ftp://id.example/x", false),
        ("/x", false),
        ("", false),
    ] {
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            let error = error(&remote, name, json!(address));
            assert_eq!(error.is_none(), is_allowed, "{name} {address} {error:?}");
        }
    }
    for issuer in [
        "http://127.0.0.1:8080",
        "https://localhost",
        "http://[::1]:1/realm",
    ] {
        let local = exact(issuer);
        for (address, is_allowed) in [
            ("http://127.0.0.1:9/x", true),
            ("http://localhost/x", true),
            ("https://id.example/x", true),
            ("http://id.example/x", false),
            ("http://10.0.0.1/x", false),
            ("http://169.254.169.254/latest", false),
        ] {
            let mut document = document();
            document["issuer"] = json!(issuer);
            document["token_endpoint"] = json!(address);
            let result = ProviderMetadata::parse(document.to_string().as_bytes(), &local);
            assert_eq!(result.is_ok(), is_allowed, "{issuer} {address}");
        }
    }
}

#[test]
fn configured_address_replaces_the_document_s() {
    let mut provider = exact("https://id.example/realm");
    let own = Url::parse("https://own.example/token").unwrap();
    provider.endpoints.token = Some(own.clone());
    assert_eq!(
        error(&provider, "token_endpoint", json!("http://evil.example")),
        None
    );
    let document = document().to_string();
    let metadata = ProviderMetadata::parse(document.as_bytes(), &provider).unwrap();
    assert_eq!(metadata.token, own);
    assert_eq!(metadata.jwks.unwrap().as_str(), "https://keys.example/jwks");
    assert_eq!(metadata.par, None);
}

#[test]
fn members_of_a_wrong_type_make_the_document_unusable() {
    let provider = exact("https://id.example/realm");
    for (name, value) in [
        ("token_endpoint", json!(["https://id.example/token"])),
        ("token_endpoint", json!(null)),
        ("jwks_uri", json!(null)),
        ("userinfo_endpoint", json!(1)),
        ("require_pushed_authorization_requests", json!("true")),
        ("authorization_response_iss_parameter_supported", json!(1)),
        ("code_challenge_methods_supported", json!("S256")),
        ("id_token_signing_alg_values_supported", json!([1])),
    ] {
        assert!(error(&provider, name, value).is_some(), "{name}");
    }
    let twice = document().to_string().replacen('{', r#"{"issuer":"x","#, 1);
    assert!(matches!(
        ProviderMetadata::parse(twice.as_bytes(), &provider),
        Err(MetadataError::NotJson(_))
    ));
    for text in ["", "[]", "null", "<html>", "{\"issuer\":"] {
        assert!(
            ProviderMetadata::parse(text.as_bytes(), &provider).is_err(),
            "{text}"
        );
    }
}
