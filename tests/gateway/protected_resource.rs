//! Protected-resource metadata (RFC 9728): an OAuth client, such as that of an MCP server, finds the
//! authorization server of a route by the challenge of a rejected request.

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// As the requests of these tests name it.
const ORIGIN: &str = "http://localhost";
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Resources under `/mcp` and, with a scope, under `/mcp/admin`; the other routes are none.
fn config() -> Config {
    let resource = |name: &str, prefix: &str| json!({ "name": name, "match": { "prefix": prefix }, "upstream": "echo", "oauth_resource": true });
    let mut admin = resource("admin", "/mcp/admin");
    admin["require"] = json!({ "scopes": ["mcp:admin"] });
    admin["match"]["methods"] = json!(["POST"]);
    let entry = |name: &str, issuer: Value| {
        json!({ "name": name, "prefix": format!("{name}_"), "issuer": issuer, "client_id": "a",
            "client_secret": "b", "url": "http://127.0.0.1:1/introspect" })
    };
    Config::new(Upstream::start().address)
        .set(
            "/tokens/trusted_issuers",
            json!([{ "issuer": "https://id.example", "audience": "shop", "user_prefix": "id:",
                "jwks_url": "http://127.0.0.1:1/keys" }]),
        )
        .set(
            "/tokens/introspection",
            json!([
                entry("same", json!("https://id.example")),
                entry("other", json!("https://other.example")),
                entry("nameless", Value::Null),
            ]),
        )
        .route(resource("mcp", "/mcp"))
        .route(admin)
}

/// The `resource_metadata` of a response's challenge.
fn metadata_url(response: &Response) -> Option<String> {
    let challenge = response.header("www-authenticate")?;
    assert!(challenge.starts_with("Bearer realm="), "{challenge}");
    let (_, rest) = challenge.split_once("resource_metadata=\"")?;
    Some(rest.trim_end_matches('"').to_owned())
}

#[test]
fn client_finds_the_servers_of_a_route_by_its_challenge() {
    let gateway = Gateway::start(config());
    let refused = gateway.get("/mcp/tools");
    refused.assert_refused(401, "UNAUTHENTICATED");
    let url = metadata_url(&refused).unwrap();
    assert_eq!(url, format!("{ORIGIN}{WELL_KNOWN}/mcp"));
    let metadata = gateway.get(url.strip_prefix(ORIGIN).unwrap());
    assert_eq!(
        metadata.assert_ok().header("content-type"),
        Some("application/json")
    );
    assert_eq!(
        metadata.json(),
        json!({
            "resource": format!("{ORIGIN}/mcp"),
            "authorization_servers": ["https://id.example", "https://other.example"],
            "bearer_methods_supported": ["header"],
        })
    );
    // Any rejected credential, in any format of an error.
    for request in [
        Request::get("/mcp").bearer("forged"),
        Request::get("/mcp").header("Accept", "text/html"),
        Request::get("/mcp").header("Accept", "application/problem+json"),
        Request::get("/mcp").cookie("portcullis=stale"),
        Request::post("/mcp").header("Authorization", "Basic YTpi"),
    ] {
        let response = gateway.request(&request);
        assert_eq!(response.status, 401, "{}", response.text());
        assert_eq!(metadata_url(&response).as_ref(), Some(&url));
    }
    let other = gateway.get("/private/a");
    assert_eq!(
        metadata_url(other.assert_refused(401, "UNAUTHENTICATED")),
        None
    );
    let alice = gateway.register("alice@example.com");
    let ok = gateway.request(&Request::get("/mcp").bearer(&alice.access_token));
    assert_eq!(ok.assert_ok().header("www-authenticate"), None);
}

#[test]
fn most_specific_route_that_is_a_resource_is_described() {
    let gateway = Gateway::start(config());
    let resource = |path: &str| {
        let response = gateway.get(&format!("{WELL_KNOWN}{path}"));
        (response.status == 200).then(|| response.json()["resource"].clone())
    };
    for (path, expected) in [
        ("/mcp", Some("/mcp")),
        ("/mcp/", Some("/mcp")),
        ("/mcp/tools/a", Some("/mcp")),
        ("/mcp/admin", Some("/mcp/admin")),
        ("/mcp/admin/x?y=z", Some("/mcp/admin")),
        ("/mcp/adminx", Some("/mcp")),
        ("", None),
        ("/", None),
        ("/private", None),
        ("/mcpx", None),
        ("x/mcp", None),
        ("/mcp%2fadmin", None),
    ] {
        let expected = expected.map(|path| json!(format!("{ORIGIN}{path}")));
        assert_eq!(resource(path), expected, "{path}");
    }
    let admin = gateway.get(&format!("{WELL_KNOWN}/mcp/admin")).json();
    assert_eq!(admin["scopes_supported"], json!(["mcp:admin"]));
    // A missing scope is a challenge, too.
    let alice = gateway.register("alice@example.com");
    let lacking = gateway.request(&Request::post("/mcp/admin").bearer(&alice.access_token));
    let url = metadata_url(lacking.assert_refused(403, "FORBIDDEN"));
    assert_eq!(url.unwrap(), format!("{ORIGIN}{WELL_KNOWN}/mcp/admin"));
    let challenge = lacking.header("www-authenticate").unwrap();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
}

#[test]
fn clients_in_browsers_may_read_the_metadata() {
    let gateway = Gateway::start(config());
    let target = format!("{WELL_KNOWN}/mcp");
    let preflight = Request::new("OPTIONS", &target)
        .header("Origin", "https://inspector.example")
        .header("Access-Control-Request-Method", "GET")
        .header("Access-Control-Request-Headers", "mcp-protocol-version");
    let response = gateway.request(&preflight);
    assert_eq!(response.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-headers", "*"),
    ] {
        assert_eq!(response.header(name), Some(value));
    }
    let read =
        gateway.request(&Request::get(&target).header("Origin", "https://inspector.example"));
    assert_eq!(
        read.assert_ok().header("access-control-allow-origin"),
        Some("*")
    );
    // Other methods are routed, to no route here.
    gateway
        .request(&Request::post(&target))
        .assert_refused(404, "ROUTE_NOT_FOUND");
}

#[test]
fn origin_is_the_configured_one_or_that_of_the_request() {
    let config = config()
        .set("/api/public_url", json!("https://app.example.com"))
        .route(
            json!({ "name": "elsewhere", "upstream": "echo", "oauth_resource": true,
            "match": { "prefix": "/mcp", "host": "mcp.example.com" } }),
        );
    let gateway = Gateway::start(config);
    for (host, expected) in [
        ("app.example.com", "https://app.example.com/mcp"),
        ("other.example.com", "https://app.example.com/mcp"),
        ("mcp.example.com", "https://mcp.example.com/mcp"),
    ] {
        let metadata = Request::get(&format!("{WELL_KNOWN}/mcp")).header("Host", host);
        assert_eq!(gateway.request(&metadata).json()["resource"], expected);
        let refused = gateway.request(&Request::get("/mcp").header("Host", host));
        let url = metadata_url(&refused).unwrap();
        assert_eq!(url.replace(WELL_KNOWN, ""), expected);
    }
}

#[test]
fn rejected_grpc_call_names_the_metadata() {
    let gateway = Gateway::start(config());
    let call = Request::post("/mcp").header("Content-Type", "application/grpc");
    let response = gateway.request(&call);
    assert_eq!(response.header("grpc-status"), Some("16"));
    let url = metadata_url(&response).unwrap();
    assert_eq!(url, format!("{ORIGIN}{WELL_KNOWN}/mcp"));
}
