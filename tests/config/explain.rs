//! `portcullis explain`.

use std::fs;

use crate::{SIGNING, portcullis, root, stderr, stdout};

#[test]
fn explain_names_the_route_and_the_refusal() {
    let file = root().join("config/portcullis.full.yaml");
    let explain = |url: &str| {
        let output = portcullis(&["explain", "--config", file.to_str().unwrap(), "GET", url]);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let orders = explain("http://shop.test/orders/7?a=b");
    for line in [
        "auth      required\n",
        "limit     per-address: 300 in 1m by ip (sliding_window), before authentication\n",
        "limit     per-user: 100 in 1m by user and route (token_bucket with burst 20), after authentication\n",
        "upstream  orders: http://127.0.0.1:3000, http://127.0.0.1:3001\n",
        "sent      GET /orders/7?a=b\n",
    ] {
        assert!(orders.contains(line), "{line}{orders}");
    }
    assert!(orders.starts_with("route     orders: "), "{orders}");
    let small = root().join("config/portcullis.yaml");
    let small = small.to_str().unwrap();
    let public = stdout(&portcullis(&[
        "explain",
        "--config",
        small,
        "GET",
        "/public/x",
    ]));
    assert!(
        public.contains("comes first, for its prefix is longer\n"),
        "{public}"
    );
    for (url, expected) in [
        ("/other", "404 ROUTE_NOT_FOUND"),
        (
            "/orders/../x",
            "400 BAD_REQUEST: the path has a dot segment",
        ),
        ("/orders//x", "400 BAD_REQUEST: the path has double_slash"),
        (
            "/orders/a%2fb",
            "400 BAD_REQUEST: the path has encoded_slash",
        ),
        ("http://a..b/orders", "400 BAD_REQUEST: the host"),
    ] {
        let found = explain(url);
        assert!(
            found.contains(&format!("refused   {expected}")),
            "{url}: {found}"
        );
    }
}

#[test]
fn explain_names_the_credential_that_decides() {
    let file = root().join("config/portcullis.full.yaml");
    let token = "0".repeat(64);
    let cookie = format!("Cookie: __Host-portcullis={token}");
    let session = format!("Authorization: Session {token}");
    let decides = |headers: &[&str]| {
        let mut args = vec![
            "explain",
            "--config",
            file.to_str().unwrap(),
            "GET",
            "/orders",
        ];
        args.extend(headers.iter().flat_map(|header| ["-H", header]));
        let text = stdout(&portcullis(&args));
        let line = text.lines().find(|line| line.starts_with("decides"));
        line.unwrap()
            .trim_start_matches("decides")
            .trim()
            .to_owned()
    };
    for (headers, expected) in [
        (
            &[][..],
            "none, neither in Authorization nor in the cookie __Host-portcullis: 401 UNAUTHENTICATED",
        ),
        (
            &[cookie.as_str()],
            "the cookie __Host-portcullis; Authorization has no credential of the gateway",
        ),
        (
            &[cookie.as_str(), "Authorization: Basic YTpi"],
            "the cookie __Host-portcullis; Authorization has no credential of the gateway",
        ),
        (
            &[cookie.as_str(), "Authorization: Bearer a.b.c"],
            "the bearer token in Authorization, which comes before the cookie",
        ),
        (
            &[session.as_str()],
            "the session token in Authorization, which comes before the cookie",
        ),
        (
            &["Authorization: Session x"],
            "the session token in Authorization, which is malformed: 401 SESSION_NOT_FOUND",
        ),
        (
            &[cookie.as_str(), cookie.as_str()],
            "two cookies __Host-portcullis: 400 AMBIGUOUS_CREDENTIALS",
        ),
    ] {
        assert_eq!(decides(headers), expected);
    }
}

#[test]
fn explain_says_what_a_route_does_not_accept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let routes = "routes: [{ name: app, upstream: app, accept: [token] }]\n";
    let text = super::BASE.replace("routes: [{ name: app, upstream: app }]\n", routes);
    fs::write(&file, format!("{text}tokens:\n{SIGNING}")).unwrap();
    let session = format!("Authorization: Session {}", "0".repeat(64));
    for (header, expected) in [
        (
            session.as_str(),
            "none: the route does not accept a session: 401 UNAUTHENTICATED",
        ),
        (
            "Authorization: Bearer a.b.c",
            "the bearer token in Authorization, which comes before the cookie",
        ),
    ] {
        let file = file.to_str().unwrap();
        let text = stdout(&portcullis(&[
            "explain", "--config", file, "GET", "/", "-H", header,
        ]));
        let line = text
            .lines()
            .find(|line| line.starts_with("decides"))
            .unwrap();
        assert_eq!(
            line.trim_start_matches("decides").trim(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn explain_says_where_browsers_sign_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let provider = "identity: { providers: { corp: { issuer: \"https://id.example\", client_id: a, client_auth: none, allow: anyone } } }\n";
    for (word, identity, expected) in [
        ("refuse", "", "browsers receive 401"),
        (
            "redirect",
            "",
            "browsers are sent to the sign-in page /api/v1/sign-in?return_to=%2Fa%2Fb",
        ),
        (
            "redirect",
            provider,
            "browsers are sent to provider corp, the only way to sign in",
        ),
        (
            "/login?next={return_to}",
            "",
            "browsers are sent to /login?next=%2Fa%2Fb",
        ),
    ] {
        let text = format!(
            "listeners: [{{ bind: 127.0.0.1:8080 }}]\nupstreams: {{ app: {{ servers: [http://127.0.0.1:3000] }} }}\n\
             routes: [{{ name: app, upstream: app, on_unauthenticated: \"{word}\" }}]\ntokens:\n{SIGNING}{identity}"
        );
        fs::write(&file, text).unwrap();
        let output = portcullis(&["explain", "--config", file.to_str().unwrap(), "GET", "/a/b"]);
        let text = stdout(&output);
        assert!(
            text.contains(&format!("sign-in   {expected}\n")),
            "{text}{}",
            stderr(&output)
        );
    }
}

#[test]
fn explain_says_what_a_front_proxy_receives() {
    let file = root().join("config/portcullis.full.yaml");
    let explain = |arguments: &[&str]| {
        let given = ["explain", "--config", file.to_str().unwrap(), "--via"];
        let output = portcullis(&[&given[..], arguments].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let identity = "x-session-id, x-user-email, x-user-id, x-user-roles";
    for (dialect, rejected, limited, unknown) in [
        (
            "auth-request",
            "401, x-portcullis-code: UNAUTHENTICATED, x-portcullis-status: 401, \
             www-authenticate: Bearer realm=\"portcullis\"",
            "403, x-portcullis-code: RATE_LIMITED, x-portcullis-status: 429",
            "403, x-portcullis-code: STORE_UNAVAILABLE, x-portcullis-status: 503",
        ),
        (
            "forward-auth",
            "401, x-portcullis-code: UNAUTHENTICATED, www-authenticate: Bearer realm=\"portcullis\"",
            "429, x-portcullis-code: RATE_LIMITED",
            "503, x-portcullis-code: STORE_UNAVAILABLE",
        ),
        (
            "ext-authz",
            "401, x-portcullis-code: UNAUTHENTICATED, www-authenticate: Bearer realm=\"portcullis\"",
            "429, x-portcullis-code: RATE_LIMITED",
            "503, x-portcullis-code: STORE_UNAVAILABLE",
        ),
    ] {
        let orders = explain(&[dialect, "GET", "https://shop.test/orders/7"]);
        for line in [
            format!("allowed   200, x-portcullis-code: OK, with {identity}\n"),
            format!("rejected  {rejected}\n"),
            format!("limited   {limited}\n"),
            format!("unknown   {unknown}\n"),
        ] {
            assert!(orders.contains(&line), "{dialect}: {line}{orders}");
        }
        assert!(!orders.contains("\nsent "), "{orders}");
    }
    let nowhere = explain(&["auth-request", "GET", "/nowhere"]);
    assert!(
        nowhere.contains(
            "refused   404 ROUTE_NOT_FOUND: no route matches\n\
             received  403, x-portcullis-code: ROUTE_NOT_FOUND, x-portcullis-status: 404\n"
        ),
        "{nowhere}"
    );
    let forged = ["-H", "X-User_Id: admin"];
    let forged = explain(&[&["forward-auth", "GET", "/orders"][..], &forged].concat());
    assert!(
        forged.contains("refused   400 BAD_REQUEST: the name x-user_id is reserved"),
        "{forged}"
    );
    let without = root().join("config/portcullis.yaml");
    let without = without.to_str().unwrap();
    let arguments = ["--via", "ext-authz", "GET", "/"];
    let output = portcullis(&[&["explain", "--config", without][..], &arguments].concat());
    assert!(!output.status.success());
    assert!(stderr(&output).contains("\"forward_auth\" is null"));
}
