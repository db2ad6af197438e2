//! The sign-in page in a real browser, with scripts and without.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::upstream::Upstream;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn fill(browser: &Browser, login: &str, password: &str) {
    browser.find("#login").await.clear().await.unwrap();
    browser.find("#login").await.send_keys(login).await.unwrap();
    let field = browser.find("#password").await;
    field.send_keys(password).await.unwrap();
    browser.find("button").await.click().await.unwrap();
}

/// From a page that needs a session, over a mistake, to that page, and out again.
async fn there_and_back(gateway: &Gateway, login: &str, password: &str, scripts: bool) {
    let browser = Browser::start(scripts).await;
    let at = |path: &str| format!("http://{}{path}", gateway.public);
    let wanted = "/private/orders?from=1&to=%2F%2F2";
    browser.client.goto(&at(wanted)).await.unwrap();
    let page = browser.place().await;
    assert!(page.starts_with("/api/v1/sign-in?return_to="), "{page}");
    browser.until_title("Sign in").await;
    let told = |role: &str, name: &str| (role.to_owned(), name.to_owned());
    let login_field = browser.role_and_name("#login").await;
    assert_eq!(login_field, told("textbox", "Email or username"));
    assert_eq!(browser.role_and_name("#password").await.1, "Password");
    assert_eq!(
        browser.role_and_name("button").await,
        told("button", "Sign in")
    );
    assert_eq!(
        browser.role_and_name("h1").await,
        told("heading", "Sign in")
    );
    assert_eq!(browser.role_and_name("main").await.0, "main");
    assert_eq!(focused(&browser).await, "login");
    let style = browser.find("main").await.css_value("max-width").await;
    assert_eq!(style.unwrap(), "384px", "the policy lets the style in");

    fill(&browser, login, "not the password").await;
    browser.until_title("Error: Sign in").await;
    assert_eq!(browser.role_and_name("#problem").await.0, "alert");
    let problem = browser.find("#problem").await.text().await.unwrap();
    assert_eq!(problem, "The name or the password is wrong.");
    assert_eq!(focused(&browser).await, "password");
    let kept = browser.find("#login").await.prop("value").await.unwrap();
    assert_eq!(kept.as_deref(), Some(login));

    fill(&browser, login, password).await;
    browser.until_place(wanted).await;
    // Whoever is signed in goes on.
    let again = at("/api/v1/sign-in?return_to=%2Fprivate%2Fb");
    browser.client.goto(&again).await.unwrap();
    assert_eq!(browser.place().await, "/private/b");

    browser.client.goto(&at("/api/v1/sign-out")).await.unwrap();
    browser.find("button").await.click().await.unwrap();
    browser.until_title("You are signed out").await;
    browser.client.goto(&at(wanted)).await.unwrap();
    browser.until_title("Sign in").await;
    browser.close().await;
}

async fn focused(browser: &Browser) -> String {
    let element = browser.client.active_element().await.unwrap();
    element.attr("id").await.unwrap().unwrap_or_default()
}

#[test]
fn a_person_signs_in_without_script_and_comes_back_to_where_they_were() {
    let config = Config::new(Upstream::start().address)
        .set("/routes/0/on_unauthenticated", json!("redirect"));
    let gateway = Gateway::start(config);
    gateway.register("ann@example.com");
    runtime().block_on(there_and_back(&gateway, "ann@example.com", PASSWORD, false));
}

#[test]
fn a_person_whom_a_backend_knows_does_so_too() {
    let backend = crate::support::backend::Backend::start("ann", "ann-knows-this");
    let config = Config::new(Upstream::start().address)
        .set("/routes/0/on_unauthenticated", json!("redirect"))
        .set(
            "/identity",
            json!({ "upstream": {
                "login": format!("POST http://{}/login", backend.address),
                "user_id": "/id",
            } }),
        );
    let gateway = Gateway::start(config);
    runtime().block_on(there_and_back(&gateway, "ann", "ann-knows-this", true));
}
