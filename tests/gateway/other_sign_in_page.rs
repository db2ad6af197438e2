//! Sign-in pages that are not the gateway's own: where a browser is sent, and where it is not.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const ACCEPT: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

fn gateway(page: &str) -> Gateway {
    let config = Config::new(Upstream::start().address);
    Gateway::start(config.set("/routes/0/on_unauthenticated", json!(page)))
}

#[test]
fn browser_is_sent_to_a_page_of_the_backend() {
    let gateway = gateway("/private/login?next={return_to}&a=b");
    let open = |path: &str| Request::get(path).header("Accept", ACCEPT);
    let response = gateway.request(&open("/private/a?b=c&d"));
    assert_eq!(response.status, 303);
    assert_eq!(
        response.header("location"),
        Some("/private/login?next=%2Fprivate%2Fa%3Fb%3Dc%26d&a=b")
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    for (what, request) in [
        ("the page itself", open("/private/login?next=%2F&a=b")),
        ("a program", Request::get("/private/a")),
        (
            "a script",
            open("/private/a").header("Sec-Fetch-Mode", "cors"),
        ),
        ("a token", open("/private/a").bearer("a.b.c")),
        (
            "a prefetch",
            open("/private/a").header("Sec-Purpose", "prefetch"),
        ),
    ] {
        assert_eq!(gateway.request(&request).status, 401, "{what}");
    }
}

#[test]
fn page_of_another_host_receives_the_whole_address() {
    let gateway = gateway("https://id.example.com/login?rd={return_to}");
    let open = Request::get("/private/a?b").header("Accept", ACCEPT);
    let response = gateway.request(&open);
    assert_eq!(response.status, 303);
    assert_eq!(
        response.header("location"),
        Some("https://id.example.com/login?rd=http%3A%2F%2Flocalhost%2Fprivate%2Fa%3Fb")
    );
}
