//! Sign-in at the certified provider in a real browser, from end to end.

use fantoccini::Locator;

use crate::support::browser::{Browser, runtime};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::npm_provider::NpmProvider;
use crate::support::provider::{CORP, Endpoint, Provider};
use crate::support::upstream::Upstream;

/// Waits for the provider's page and signs in there.
async fn enter(browser: &Browser, user: &str) {
    browser.wait_for_title("Example provider").await;
    let login = browser.find("#login").await;
    login.clear().await.unwrap();
    login.send_keys(user).await.unwrap();
    let password = browser.find("#password").await;
    password
        .send_keys(&format!("{user}-password"))
        .await
        .unwrap();
    browser.find("#submit").await.click().await.unwrap();
}

async fn open(browser: &Browser, gateway: &Gateway, path: &str) {
    let address = format!("http://{}{path}", gateway.public);
    browser.client.goto(&address).await.unwrap();
}

async fn text_of(browser: &Browser, css: &str) -> String {
    browser.find(css).await.text().await.unwrap()
}

/// A browser, where the example runs.
fn with_example(scripts: bool, story: &impl AsyncFn(&Browser, &Gateway, &mut NpmProvider)) {
    let Some((mut provider, gateway)) = NpmProvider::start_with_gateway() else {
        return;
    };
    runtime().block_on(async {
        let browser = Browser::start(scripts).await;
        story(&browser, &gateway, &mut provider).await;
        browser.close().await;
    });
}

#[test]
fn browser_without_scripts_signs_in_and_out() {
    with_example(false, &async |browser, gateway, _| {
        open(browser, gateway, "/private/orders?from=1").await;
        enter(browser, "ann").await;
        browser.wait_for_path("/private/orders?from=1").await;
        assert_eq!(text_of(browser, "#user").await, "Signed in as example:ann.");
        open(browser, gateway, "/api/v1/sign-out").await;
        browser.find("button").await.click().await.unwrap();
        browser
            .wait_for_title("Sign out of the example provider?")
            .await;
        browser.find("#yes").await.click().await.unwrap();
        browser.wait_for_title("You are signed out").await;
        // Its link asks for the password, although nothing ended but this session.
        browser.find("a").await.click().await.unwrap();
        browser.wait_for_title("Example provider").await;
    });
}

#[test]
fn two_tabs_return_to_their_own_pages() {
    with_example(true, &async |browser, gateway, _| {
        open(browser, gateway, "/private/first").await;
        browser.wait_for_title("Example provider").await;
        let first = browser.client.window().await.unwrap();
        let second = browser.client.new_window(true).await.unwrap().handle;
        browser
            .client
            .switch_to_window(second.clone())
            .await
            .unwrap();
        open(browser, gateway, "/private/second").await;
        browser.wait_for_title("Example provider").await;
        browser.client.switch_to_window(first).await.unwrap();
        enter(browser, "ann").await;
        browser.wait_for_path("/private/first").await;
        browser.client.switch_to_window(second).await.unwrap();
        enter(browser, "ann").await;
        browser.wait_for_path("/private/second").await;
        assert_eq!(text_of(browser, "#user").await, "Signed in as example:ann.");
    });
}

#[test]
fn back_button_never_shows_an_error() {
    with_example(true, &async |browser, gateway, _| {
        open(browser, gateway, "/").await;
        browser
            .find("a[href='/private']")
            .await
            .click()
            .await
            .unwrap();
        enter(browser, "ann").await;
        browser.wait_for_path("/private").await;
        // Over the provider's page, which goes on by itself or has nothing to go on with.
        browser.client.back().await.unwrap();
        open(browser, gateway, "/private/b").await;
        browser.wait_for_path("/private/b").await;
        // The callback once more, as a restored tab opens it.
        let callback = format!(
            "/api/v1/auth/callback/example?code=x&state={}",
            "a".repeat(43)
        );
        open(browser, gateway, &callback).await;
        browser.wait_for_path("/").await;
        assert_eq!(text_of(browser, "#user").await, "Signed in as example:ann.");
    });
}

#[test]
fn expired_flow_is_explained_and_starts_anew() {
    with_example(false, &async |browser, gateway, _| {
        open(browser, gateway, "/private/a").await;
        browser.wait_for_title("Example provider").await;
        // As after ten minutes; the provider has its own cookies on another host.
        browser.forget_cookies_of("127.0.0.1").await;
        enter(browser, "ann").await;
        browser.wait_for_title("Sign-in failed").await;
        assert!(text_of(browser, "main").await.contains("FLOW_INVALID"));
        let address = browser.client.current_url().await.unwrap();
        assert!(
            address.path().ends_with("/auth/callback/example"),
            "{address}"
        );
        // The provider knows its user by now.
        browser.find("a").await.click().await.unwrap();
        browser.wait_for_title("Application").await;
    });
}

#[test]
fn refusal_of_the_provider_is_no_loop() {
    with_example(true, &async |browser, gateway, _| {
        open(browser, gateway, "/private/a").await;
        browser.wait_for_title("Example provider").await;
        browser.find("#cancel").await.click().await.unwrap();
        browser.wait_for_title("Sign-in failed").await;
        assert!(text_of(browser, "main").await.contains("SIGN_IN_REFUSED"));
        browser.find("a").await.click().await.unwrap();
        enter(browser, "ann").await;
        browser.wait_for_path("/private/a").await;
    });
}

#[test]
fn step_up_returns_to_the_page_that_asked_for_it() {
    with_example(true, &async |browser, gateway, _| {
        open(browser, gateway, "/private").await;
        enter(browser, "ann").await;
        browser.wait_for_path("/private").await;
        open(browser, gateway, "/secure/report").await;
        browser.wait_for_title("Example provider").await;
        let code = browser.client.find(Locator::Css("#code")).await.unwrap();
        code.send_keys("123456").await.unwrap();
        enter(browser, "ann").await;
        browser.wait_for_path("/secure/report").await;
    });
}

#[test]
fn blocked_cookie_is_no_loop() {
    let provider = Provider::start();
    let config = provider
        .configure(Config::new(Upstream::start().address).set("/identity", serde_json::json!({})))
        .set(
            "/routes/0/on_unauthenticated",
            serde_json::json!("redirect"),
        )
        // Over plain HTTP no browser keeps it.
        .set("/sessions/cookie/secure", serde_json::json!(true));
    let gateway = Gateway::start(config);
    runtime().block_on(async {
        let browser = Browser::start(true).await;
        let port = gateway.public.port();
        let address = format!("http://app.test:{port}/private/a");
        browser.client.goto(&address).await.unwrap();
        browser.wait_for_title("Sign-in failed").await;
        let place = browser.client.current_url().await.unwrap();
        assert!(
            place.path().ends_with(&format!("/auth/callback/{CORP}")),
            "{place}"
        );
        assert_eq!(provider.received(Endpoint::Authorization).len(), 1);
        browser.close().await;
    });
}
