//! The sign-in page in a real browser, with scripts and without.

use serde_json::json;

use crate::support::browser::{Browser, runtime};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::upstream::Upstream;

async fn submit_credentials(browser: &Browser, login: &str, password: &str) {
    browser.find("#login").await.clear().await.unwrap();
    browser.find("#login").await.send_keys(login).await.unwrap();
    let field = browser.find("#password").await;
    field.send_keys(password).await.unwrap();
    browser.find("button").await.click().await.unwrap();
}

/// From a page that needs a session, over a mistake, to that page, and out again.
async fn sign_in_and_return(gateway: &Gateway, login: &str, password: &str, scripts: bool) {
    let browser = Browser::start(scripts).await;
    let at = |path: &str| format!("http://{}{path}", gateway.public);
    let wanted = "/private/orders?from=1&to=%2F%2F2";
    browser.client.goto(&at(wanted)).await.unwrap();
    let page = browser.path_and_query().await;
    assert!(page.starts_with("/api/v1/sign-in?return_to="), "{page}");
    browser.wait_for_title("Sign in").await;
    let reported = |role: &str, name: &str| (role.to_owned(), name.to_owned());
    let login_field = browser.role_and_name("#login").await;
    assert_eq!(login_field, reported("textbox", "Email or username"));
    assert_eq!(browser.role_and_name("#password").await.1, "Password");
    assert_eq!(
        browser.role_and_name("button").await,
        reported("button", "Sign in")
    );
    assert_eq!(
        browser.role_and_name("h1").await,
        reported("heading", "Sign in")
    );
    assert_eq!(browser.role_and_name("main").await.0, "main");
    assert_eq!(focused_element(&browser).await, "login");
    let style = browser.find("main").await.css_value("max-width").await;
    assert_eq!(style.unwrap(), "384px", "the policy lets the style in");

    submit_credentials(&browser, login, "not the password").await;
    browser.wait_for_title("Error: Sign in").await;
    assert_eq!(browser.role_and_name("#problem").await.0, "alert");
    let problem = browser.find("#problem").await.text().await.unwrap();
    assert_eq!(problem, "The name or the password is wrong.");
    assert_eq!(focused_element(&browser).await, "password");
    let kept = browser.find("#login").await.prop("value").await.unwrap();
    assert_eq!(kept.as_deref(), Some(login));

    submit_credentials(&browser, login, password).await;
    browser.wait_for_path(wanted).await;
    // A signed-in browser is redirected at once.
    let again = at("/api/v1/sign-in?return_to=%2Fprivate%2Fb");
    browser.client.goto(&again).await.unwrap();
    assert_eq!(browser.path_and_query().await, "/private/b");

    browser.client.goto(&at("/api/v1/sign-out")).await.unwrap();
    browser.find("button").await.click().await.unwrap();
    browser.wait_for_title("You are signed out").await;
    browser.client.goto(&at(wanted)).await.unwrap();
    browser.wait_for_title("Sign in").await;
    browser.close().await;
}

async fn focused_element(browser: &Browser) -> String {
    let element = browser.client.active_element().await.unwrap();
    element.attr("id").await.unwrap().unwrap_or_default()
}

#[test]
fn sign_in_without_scripts_returns_to_the_page() {
    let config = Config::new(Upstream::start().address)
        .set("/routes/0/on_unauthenticated", json!("redirect"));
    let gateway = Gateway::start(config);
    gateway.register("ann@example.com");
    runtime().block_on(sign_in_and_return(
        &gateway,
        "ann@example.com",
        PASSWORD,
        false,
    ));
}

#[test]
fn backend_user_sign_in_returns_to_the_page() {
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
    runtime().block_on(sign_in_and_return(&gateway, "ann", "ann-knows-this", true));
}

/// Signs in on the page that the browser is sent to.
async fn sign_in(browser: &Browser, gateway: &Gateway, host: &str, path: &str) {
    let port = gateway.public.port();
    let address = format!("http://{host}:{port}{path}");
    browser.client.goto(&address).await.unwrap();
    browser.wait_for_title("Sign in").await;
    submit_credentials(browser, "ann@example.com", PASSWORD).await;
}

/// A gateway with a page that leads on to another origin.
fn start_with_return_origin(elsewhere: &str, allowed: bool) -> (Gateway, String) {
    let config = Config::new(Upstream::start().address)
        .set("/routes/0/on_unauthenticated", json!("redirect"))
        .set(
            "/api/allowed_origins",
            json!(if allowed { vec![elsewhere] } else { vec![] }),
        );
    let gateway = Gateway::start(config);
    gateway.register("ann@example.com");
    let path = format!("/private/status-302?Location={elsewhere}/public/arrived");
    (gateway, path)
}

#[test]
fn sign_in_may_return_to_an_allowed_origin() {
    let other = Gateway::start(Config::new(Upstream::start().address));
    let elsewhere = format!("http://other.test:{}", other.public.port());
    runtime().block_on(async {
        let (gateway, path) = start_with_return_origin(&elsewhere, true);
        let browser = Browser::start(false).await;
        sign_in(&browser, &gateway, "app.test", &path).await;
        browser.wait_for_path("/public/arrived").await;
        let place = browser.client.current_url().await.unwrap();
        assert_eq!(place.host_str(), Some("other.test"));
        browser.close().await;
    });
}

#[test]
fn dropped_cookie_is_explained_on_the_page() {
    let config = Config::new(Upstream::start().address)
        .set("/routes/0/on_unauthenticated", json!("redirect"))
        // Over plain HTTP no browser keeps it.
        .set("/sessions/cookie/secure", json!(true));
    let gateway = Gateway::start(config);
    gateway.register("ann@example.com");
    runtime().block_on(async {
        let browser = Browser::start(true).await;
        sign_in(&browser, &gateway, "app.test", "/private/a").await;
        browser.wait_for_title("Error: Sign in").await;
        let problem = browser.find("#problem").await.text().await.unwrap();
        assert!(problem.contains("did not keep the cookie"), "{problem}");
        browser.close().await;
    });
}

#[test]
fn error_page_is_styled_and_links_to_sign_in() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    runtime().block_on(async {
        let browser = Browser::start(false).await;
        let address = format!("http://{}/private/a", gateway.public);
        browser.client.goto(&address).await.unwrap();
        let style = browser.find("main").await.css_value("max-width").await;
        assert_eq!(style.unwrap(), "384px", "the policy lets the style in");
        assert_eq!(browser.role_and_name("main").await.0, "main");
        browser.find("a").await.click().await.unwrap();
        browser.wait_for_title("Sign in").await;
        let place = "/api/v1/sign-in?return_to=%2Fprivate%2Fa";
        assert_eq!(browser.path_and_query().await, place);
        browser.close().await;
    });
}
