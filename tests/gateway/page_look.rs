//! Brand, language and accessibility of the pages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::browser::{self, Browser};
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::npm;
use crate::support::upstream::Upstream;

const LOGO: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 9 9\"></svg>";

fn config() -> Config {
    Config::new(Upstream::start().address)
}

fn open(gateway: &Gateway, path: &str) -> Response {
    gateway.request(&Request::get(path).header("Accept", "text/html"))
}

/// The pages, and a page of an error.
const PAGES: [&str; 3] = ["/api/v1/sign-in", "/api/v1/sign-out", "/private/a"];

#[test]
fn product_stands_on_every_page_and_in_its_title() {
    let gateway = Gateway::start(config().set("/pages/product", json!("Acme <Orders>")));
    for path in PAGES {
        let page = open(&gateway, path);
        let (text, policy) = (page.text(), page.header("content-security-policy").unwrap());
        assert!(text.contains(" – Acme &lt;Orders&gt;</title>"), "{text}");
        assert!(
            text.contains("<header>Acme &lt;Orders&gt;</header>"),
            "{text}"
        );
        assert!(!policy.contains("img-src"), "{policy}");
    }
}

#[test]
fn logo_is_part_of_the_page_or_a_path_of_the_host() {
    let config = config().set("/pages/product", json!("Acme"));
    let file = config.write_beside("logo.svg", LOGO);
    let mut gateway = Gateway::start(config.set("/pages/logo_file", json!(file)));
    let inline = format!("data:image/svg+xml;base64,{}", STANDARD.encode(LOGO));
    let shows = |gateway: &Gateway, source: &str, images: &str| {
        for path in PAGES {
            let page = open(gateway, path);
            let image = format!("<header><img src=\"{source}\" alt=\"Acme\"></header>");
            assert!(page.text().contains(&image), "{}", page.text());
            let policy = page.header("content-security-policy").unwrap();
            assert!(
                policy.contains(&format!("; img-src {images}; ")),
                "{policy}"
            );
        }
    };
    shows(&gateway, &inline, "data:");
    gateway.reload("applied", |config| {
        config.put("/pages/logo_file", Value::Null);
        config.put("/pages/logo", json!("/assets/logo.svg"));
    });
    shows(&gateway, "/assets/logo.svg", "'self'");
}

#[test]
fn texts_and_language_are_those_of_the_configuration() {
    let config = config()
        .set("/pages/lang", json!("ar"))
        .set("/pages/direction", json!("rtl"))
        .set("/pages/texts/sign_in", json!("تسجيل الدخول"))
        .set("/pages/texts/signed_out", json!("تم الخروج"))
        .set(
            "/pages/messages",
            json!({ "UNAUTHENTICATED": "سجّل الدخول أولاً." }),
        );
    let gateway = Gateway::start(config);
    for (path, shown) in PAGES
        .into_iter()
        .zip(["تسجيل الدخول", "تم الخروج", "سجّل الدخول أولاً."])
    {
        let text = open(&gateway, path).text();
        assert!(text.contains("<html lang=\"ar\" dir=\"rtl\">"), "{text}");
        assert!(text.contains(&format!(">{shown}<")), "{text}");
    }
    // A text that is still in English says so.
    let missing = open(&gateway, "/nowhere").text();
    assert!(
        missing.contains("<p lang=\"en\" dir=\"ltr\">No route matches"),
        "{missing}"
    );
    // Programs branch on codes, and their messages stay.
    let refused = gateway.get("/private/a").json();
    assert_eq!(refused["error"]["message"], "Authentication is required.");
}

#[test]
fn axe_finds_nothing_on_the_pages() {
    let Some(folder) = npm::install("tests/node") else {
        return;
    };
    let axe = std::fs::read_to_string(folder.join("node_modules/axe-core/axe.min.js")).unwrap();
    let gateway = Gateway::start(config().set("/pages/product", json!("Acme")));
    browser::runtime().block_on(async {
        let browser = Browser::start(true).await;
        for path in PAGES {
            let address = format!("http://{}{path}", gateway.public);
            browser.client.goto(&address).await.unwrap();
            for (width, height) in [(390, 844), (1280, 800)] {
                browser.client.set_window_size(width, height).await.unwrap();
                assert_eq!(
                    browser.violations(&axe).await,
                    Vec::<String>::new(),
                    "{path}"
                );
            }
        }
        browser.close().await;
    });
}
