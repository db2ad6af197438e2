//! A real browser: headless Chromium, driven by chromedriver.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::connect_socket;
use super::ports;
use super::wait::{DEADLINE, eventually};

/// A runtime for a test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A window of a browser of its own.
pub struct Browser {
    pub client: Client,
    driver: Child,
    _folder: TempDir,
}

impl Browser {
    /// Starts one, with scripts or without.
    pub async fn start(scripts: bool) -> Browser {
        let folder = tempfile::tempdir().unwrap();
        let address = ports::free();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            // Its profile is put there.
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The browser is in it too, and ends with it.
            .process_group(0)
            .spawn()
            .expect("chromedriver (scripts/setup tests installs it)");
        eventually("chromedriver listens", || connect_socket(address).ok());
        let options = json!({
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                // Names that no browser takes for this machine: there cookies have no exceptions.
                "--host-resolver-rules=MAP *.test 127.0.0.1",
            ],
            "prefs": {
                "profile.managed_default_content_settings.javascript": if scripts { 1 } else { 2 },
            },
        });
        let capabilities = [("goog:chromeOptions".to_owned(), options)];
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&format!("http://{address}"))
            .await
            .unwrap();
        Browser {
            client,
            driver,
            _folder: folder,
        }
    }

    /// What a CSS selector finds first.
    pub async fn find(&self, css: &str) -> Element {
        self.client.find(Locator::Css(css)).await.unwrap()
    }

    /// The path and query of the page.
    pub async fn path_and_query(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        }
    }

    /// Waits for a page of that title.
    pub async fn wait_for_title(&self, title: &str) {
        self.wait_until(title, async || self.client.title().await.unwrap())
            .await;
    }

    /// Waits for the page of that path and query.
    pub async fn wait_for_path(&self, place: &str) {
        self.wait_until(place, async || self.path_and_query().await)
            .await;
    }

    /// A click that leads to another page may come back before the page is there.
    async fn wait_until(&self, wanted: &str, look: impl AsyncFn() -> String) {
        let start = Instant::now();
        loop {
            let found = look().await;
            if found == wanted {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{found} and not {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The role and the name of an element for assistive technology.
    pub async fn role_and_name(&self, css: &str) -> (String, String) {
        let element = self.find(css).await.element_id();
        let request = async |what: &'static str| {
            let command = Computed {
                element: element.to_string(),
                property: what,
            };
            let reported: Value = self.client.issue_cmd(command).await.unwrap();
            reported.as_str().unwrap_or_default().to_owned()
        };
        (
            request("computedrole").await,
            request("computedlabel").await,
        )
    }

    /// What axe-core, whose source is given, finds wrong with the page.
    pub async fn violations(&self, axe: &str) -> Vec<String> {
        self.client.execute(axe, Vec::new()).await.unwrap();
        let script = "const done = arguments[0]; axe.run().then(found => done(found.violations))";
        let found = self.client.execute_async(script, Vec::new()).await.unwrap();
        let violations = found.as_array().unwrap().iter();
        violations.map(Value::to_string).collect()
    }

    /// Deletes the cookies of a host, wherever the browser is.
    pub async fn forget_cookies_of(&self, host: &str) {
        let run = async |command: &'static str, parameters: Value| {
            let command = DevTools {
                command,
                parameters,
            };
            self.client.issue_cmd(command).await.unwrap()
        };
        let all: Value = run("Storage.getCookies", json!({})).await;
        for cookie in all["cookies"].as_array().unwrap() {
            if cookie["domain"] == host {
                let named =
                    json!({ "name": cookie["name"], "domain": host, "path": cookie["path"] });
                run("Network.deleteCookies", named).await;
            }
        }
    }

    /// Ends it in good order.
    pub async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.driver.wait();
    }
}

/// A command of the DevTools protocol, which chromedriver passes on.
#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/goog/cdp/execute"))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (http::Method::POST, Some(body.to_string()))
    }
}

/// WebDriver's "Get Computed Role" and "Get Computed Label".
#[derive(Debug)]
struct Computed {
    element: String,
    property: &'static str,
}

impl WebDriverCompatibleCommand for Computed {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!(
            "session/{session}/element/{}/{}",
            self.element, self.property
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::GET, None)
    }
}
