//! `portcullis check --connect` with providers.

use std::fs;

use crate::{BASE, SIGNING, portcullis, stderr, stdout};

/// A provider that responds to `GET` with the document of each path.
fn serve(documents: impl Fn(&str, &str) -> Option<String> + Send + 'static) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let issuer = origin.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match documents(path, &issuer) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", String::new()),
            };
            let length = body.len();
            let _ = write!(
                &stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    origin
}

/// The key set of RFC 7517, appendix A.1, without the RSA key.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","use":"sig","kid":"1",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

fn metadata(issuer: &str, algorithm: &str) -> String {
    format!(
        r#"{{"issuer":"{issuer}","authorization_endpoint":"{issuer}/authorize",
            "token_endpoint":"{issuer}/token","jwks_uri":"{issuer}/jwks",
            "id_token_signing_alg_values_supported":["{algorithm}"],
            "code_challenge_methods_supported":["S256"]}}"#
    )
}

#[test]
fn providers_are_tried_and_their_addresses_are_printed() {
    let good = serve(|path, issuer| match path {
        "/.well-known/openid-configuration" => Some(metadata(issuer, "ES256")),
        "/jwks" => Some(KEYS.to_owned()),
        _ => None,
    });
    let symmetric = serve(|path, issuer| match path {
        "/.well-known/openid-configuration" => Some(metadata(issuer, "HS256")),
        "/jwks" => Some(KEYS.to_owned()),
        _ => None,
    });
    let other = serve(|path, _| {
        let is_document = path == "/.well-known/openid-configuration";
        is_document.then(|| metadata("https://other.example", "ES256"))
    });
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let down = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let provider = |name: &str, issuer: &str| {
        format!(
            "    {name}: {{ issuer: \"{issuer}\", client_id: a, client_auth: none, allow: anyone }}\n"
        )
    };
    let providers = [
        ("good", &good),
        ("symmetric", &symmetric),
        ("other", &other),
        ("down", &down),
    ];
    let providers: String = providers
        .iter()
        .map(|(name, issuer)| provider(name, issuer))
        .collect();
    let text = format!(
        "{BASE}tokens:\n{SIGNING}api: {{ public_url: \"https://app.example.com\" }}\n\
         database: {{ url: \"sqlite:{}/a.db\" }}\nidentity:\n  providers:\n{providers}",
        folder.path().display()
    );
    fs::write(&file, text).unwrap();
    let output = portcullis(&["check", "--connect", "--config", file.to_str().unwrap()]);
    let (out, err) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    for line in [
        "provider good: metadata fetched, 1 usable key\n",
        "provider good: redirect URI: https://app.example.com/api/v1/auth/callback/good\n",
        "provider good: post-logout redirect URI: https://app.example.com/api/v1/sign-out\n",
        "provider good: back-channel logout URI: https://app.example.com/api/v1/auth/backchannel-logout/good\n",
        "provider down: redirect URI: https://app.example.com/api/v1/auth/callback/down\n",
    ] {
        assert!(out.contains(line), "{line}{out}");
    }
    for line in [
        "provider symmetric: it signs ID tokens with HS256, none of which is in \"algorithms\"; every sign-in would fail\n",
        "provider other: its metadata cannot be used: `issuer` of the document is not the configured one\n",
        "warning: provider down: its metadata cannot be fetched: ",
    ] {
        assert!(err.contains(line), "{line}{err}");
    }
}

#[test]
fn addresses_without_a_public_url_have_the_scheme_of_the_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    for (sessions, scheme) in [
        ("", "https"),
        ("sessions: { cookie: { secure: false } }\n", "http"),
    ] {
        // Nothing listens there.
        let text = format!(
            "{BASE}tokens:\n{SIGNING}{sessions}database: {{ url: \"sqlite:{}/a.db\" }}\nidentity:\n  \
             providers:\n    corp: {{ issuer: \"http://127.0.0.1:1\", client_id: a, client_auth: none, \
             allow: anyone }}\n",
            folder.path().display()
        );
        fs::write(&file, text).unwrap();
        let output = portcullis(&["check", "--connect", "--config", file.to_str().unwrap()]);
        let out = stdout(&output);
        let line = format!("redirect URI: {scheme}://HOST/api/v1/auth/callback/corp\n");
        assert!(out.contains(&line), "{out}");
        assert!(
            out.ends_with(
                "provider corp: the public host is unknown: HOST is that of each request, such as \
                 127.0.0.1:8080, because \"api.public_url\" is null\n"
            ),
            "{out}"
        );
    }
}
