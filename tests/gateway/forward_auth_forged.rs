//! Clients forge headers toward proxies that ask the gateway: no backend sees an identity that the
//! gateway did not give, and no client chooses what the gateway is asked about.

use serde_json::json;

use crate::support::client::{Request, Response};
use crate::support::forward_auth_deployment::{Deployment, assert_identity, behind};
use crate::support::forward_auth_proxy::AuthProgram;
use crate::support::gateway::SignedIn;

/// No header of the tests has this value otherwise.
const FORGED: &str = "forged";

/// Headers that a backend could take for an identity: several servers read `_` and `-` alike.
fn forgeries() -> Vec<Vec<String>> {
    let names = ["X-User-Id", "X-User-Email", "X-User-Roles", "X-Session-ID"];
    let spelled = |name: &str| {
        vec![
            vec![name.to_owned()],
            vec![name.to_ascii_uppercase()],
            vec![name.to_owned(), name.to_ascii_lowercase()],
            vec![name.replace('-', "_")],
            vec![name.replacen('-', "_", 1)],
            vec![name.replace('-', ".")],
            vec![name.to_owned(), name.replace('-', "_")],
            vec![name.replace('-', "_"), name.replace('-', "_")],
        ]
    };
    let of_gateway = [
        "X-Portcullis-Assertion",
        "X_Portcullis_Assertion",
        "X-Portcullis-Status",
    ];
    let mut all: Vec<_> = names.into_iter().flat_map(spelled).collect();
    all.extend(of_gateway.map(|name| vec![name.to_owned()]));
    all
}

fn send_forged(deployment: &Deployment, target: &str, names: &[String]) -> Response {
    let add = |request: Request, name: &String| request.header(name, FORGED);
    let request = names.iter().fold(Request::get(target), add);
    deployment.request(&request)
}

#[track_caller]
fn assert_nothing_forged(program: AuthProgram, response: &Response, user: Option<&SignedIn>) {
    if response.status == 200 {
        let echo = response.echo();
        assert!(
            !response.text().contains(FORGED),
            "{program:?}: {}",
            response.text()
        );
        assert_identity(program, &echo.0, user);
    } else {
        assert_eq!(response.status, 400, "{program:?}: {response:?}");
    }
}

#[test]
fn forged_identity_never_reaches_the_backend() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        for names in forgeries() {
            for target in ["/optional/a", "/public/a"] {
                let response = send_forged(deployment, target, &names);
                assert_nothing_forged(program, &response, None);
            }
            let request = Request::get("/private/a").cookie(&ann.cookie);
            let request = names.iter().fold(request, |r, name| r.header(name, FORGED));
            assert_nothing_forged(program, &deployment.request(&request), Some(&ann));
        }
        // The exact names are overwritten, not rejected.
        let exact = send_forged(deployment, "/optional/a", &["X-User-Id".to_owned()]);
        assert_identity(program, &exact.assert_ok().echo().0, None);
        // By HTTP/2, too.
        let http2 = deployment.proxy.connect_http2();
        for name in ["x-user-id", "x_user_id", "x-session-id"] {
            let (status, text) = http2.request("GET", "/public/a", &[(name, FORGED)]);
            assert!([200, 400].contains(&status), "{program:?}: {status} {text}");
            assert!(!text.contains(FORGED), "{program:?}: {text}");
        }
    });
}

/// Proxies remove what `Connection` names, which must not be the identity.
#[test]
fn client_does_not_remove_the_identity() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let request = Request::get("/private/a").cookie(&ann.cookie);
        let names = "keep-alive, X-User-Id, X-User-Email, X-Session-ID";
        let response = deployment.request(&request.header("Connection", names));
        assert_nothing_forged(program, &response, Some(&ann));
    });
}

/// Envoy joins repeated headers with commas.
#[test]
fn two_credentials_are_ambiguous() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let bearer = format!("Bearer {}", ann.access_token);
        let other = ann.cookie.replace(&ann.session_token, &"0".repeat(64));
        for (name, values) in [
            ("Authorization", [&*bearer, &*bearer]),
            ("Authorization", [&*bearer, "Bearer x"]),
            ("Cookie", [&*ann.cookie, &*other]),
            ("Cookie", [&*other, &*ann.cookie]),
        ] {
            let request = Request::get("/private/ambiguous").header(name, values[0]);
            let response = deployment.request(&request.header(name, values[1]));
            assert_eq!(response.status, 400, "{program:?}: {values:?} {response:?}");
        }
        assert!(!deployment.backend.has_seen("ambiguous"), "{program:?}");
    });
}

/// Fields by which one of the dialects names the original request.
const ORIGINAL: [(&str, &str); 11] = [
    ("X-Original-URL", "https://localhost/public/a"),
    ("X-Original-Method", "OPTIONS"),
    ("X-Original-URI", "/public/a"),
    ("X-Forwarded-Uri", "/public/a"),
    ("X-Forwarded-Method", "OPTIONS"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Port", "203.0.113.9"),
    ("X-Real-IP", "203.0.113.9"),
    ("X-Rewrite-URL", "/public/a"),
];

#[test]
fn client_does_not_choose_the_question() {
    behind(|program, deployment| {
        let steered = |target: &str| {
            let add = |request: Request, (name, value): (&str, &str)| request.header(name, value);
            let request = ORIGINAL.into_iter().fold(Request::get(target), add);
            deployment.request(&request)
        };
        let response = steered("/private/steered?uri=/public/a");
        assert_eq!(response.status, 401, "{program:?}: {response:?}");
        let echo = steered("/public/a").echo();
        assert_eq!(echo.all("x-forwarded-proto"), ["https"], "{program:?}");
        assert_eq!(echo.all("x-forwarded-host"), ["localhost"], "{program:?}");
        assert_eq!(echo.all("host"), ["localhost"], "{program:?}");
        for name in ["x-forwarded-uri", "x-forwarded-method"] {
            assert_eq!(echo.all(name).concat(), "", "{program:?}: {name}");
        }
        // Traefik sets both itself.
        for name in ["x-real-ip", "x-forwarded-port"] {
            assert_ne!(echo.all(name).concat(), "203.0.113.9", "{program:?}");
        }
        // The client of the log is this machine.
        let is_spoofed = |event: &serde_json::Value| event["client_ip"] == json!("203.0.113.9");
        assert!(
            !deployment.gateway.events().iter().any(is_spoofed),
            "{program:?}"
        );

        for name in [
            "X-Forwarded-Uri",
            "X-Original-URL",
            "X-Forwarded-Method",
            "X-Original-Method",
        ] {
            let twice = Request::get("/private/steered").header(name, "/public/a");
            let response = deployment.request(&twice.header(name, "/public/b"));
            assert_eq!(response.status, 401, "{program:?} {name}: {response:?}");
        }
        assert!(!deployment.backend.has_seen("steered"), "{program:?}");
    });
}

/// The gateway decides about the host that the backend receives.
#[test]
fn no_spelling_of_a_host_passes_another_one() {
    let hosts = [
        "evil.example, localhost",
        "localhost, evil.example",
        "evil.example,localhost",
        "localhost?evil.example",
        "localhost#evil.example",
        "localhost@evil.example",
        "localhost\\evil.example",
        "localhost:80:80",
    ];
    behind(|program, deployment| {
        for host in hosts {
            let request = Request::get("/public/other-host").header("Host", host);
            let response = deployment.request(&request);
            // Caddy has a 200 of its own for hosts that it does not know.
            let is_refused = response.status != 200 || response.body.is_empty();
            assert!(is_refused, "{program:?} {host}: {response:?}");
        }
        assert!(!deployment.backend.has_seen("other-host"), "{program:?}");
    });
}

#[test]
fn no_spelling_of_a_path_passes_another_route() {
    let targets = [
        "/public/../private/secret",
        "/public/%2e%2e/private/secret",
        "/public/..%2fprivate/secret",
        "/public/..;/private/secret",
        "/public/..\\private/secret",
        "/public%2f..%2fprivate/secret",
        "//private/secret",
        "/public//../private/secret",
        "/./private/secret",
        "/private%2fsecret",
        "/%70rivate/secret",
        "/PRIVATE/../private/secret",
        "/public/%00/../../private/secret",
        "http://localhost/private/secret",
        "https://evil.example/private/secret",
        "/private/secret#/public/a",
        "/private/secret?/public/a",
        "/api/v1/../../private/secret",
        "/api/v1/%2e%2e/%2e%2e/private/secret",
        "/api/v1//../../private/secret",
    ];
    behind(|program, deployment| {
        for target in targets {
            let response = deployment.request(&Request::get(target));
            // Caddy has a 200 of its own for hosts that it does not know.
            let is_refused = response.status != 200 || response.body.is_empty();
            assert!(is_refused, "{program:?} {target}: {response:?}");
        }
        assert!(!deployment.backend.has_seen("secret"), "{program:?}");
    });
}
