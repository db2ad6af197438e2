//! The provider of `examples/oidc`: npm `oidc-provider`, which is certified, and the application.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Request;
use super::config::{ADMIN_TOKEN, Config};
use super::gateway::Gateway;
use super::wait::eventually;
use super::{npm, ports};

const EXAMPLE: &str = "examples/oidc";

/// A running provider, with the addresses of the gateways that it knows.
pub struct NpmProvider {
    child: Child,
    program: PathBuf,
    provider: u16,
    app: u16,
    gateways: Vec<String>,
    /// Further metadata of the client.
    client: Value,
    state: TempDir,
}

impl NpmProvider {
    /// Starts it for gateways at these ports; `None`: there is no npm.
    pub fn start(gateways: &[u16]) -> Option<NpmProvider> {
        NpmProvider::start_for(gateways, json!({}))
    }

    /// The same, with further metadata of the client (OpenID Connect Registration).
    pub fn start_for(gateways: &[u16], client: Value) -> Option<NpmProvider> {
        let program = npm::install(EXAMPLE)?.join("provider.js");
        let gateways = gateways
            .iter()
            .map(|port| format!("http://127.0.0.1:{port}"));
        let gateways: Vec<String> = gateways.collect();
        let (provider, app) = (ports::free().port(), ports::free().port());
        let state = tempfile::tempdir().unwrap();
        let child = serve(&program, provider, app, &gateways, &client, state.path());
        let provider = NpmProvider {
            child,
            program,
            provider,
            app,
            gateways,
            client,
            state,
        };
        provider.await_ready();
        Some(provider)
    }

    /// The configuration of the example, with this provider's addresses and those of a gateway.
    fn gateway_file(&self, config: &Config, vary: impl FnOnce(String) -> String) -> PathBuf {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
        let text = std::fs::read_to_string(file.join("portcullis.yaml")).unwrap();
        let text = text
            .replace("127.0.0.1:8080", &config.listener(0).to_string())
            .replace("localhost:9400", &format!("localhost:{}", self.provider))
            .replace("127.0.0.1:9401", &format!("127.0.0.1:{}", self.app));
        let admin = format!(
            "admin: {{ bind: {}, token: {ADMIN_TOKEN} }}\n",
            config.admin()
        );
        config.write_beside("portcullis.yaml", admin + &vary(text))
    }

    /// Starts it, and a gateway that has the configuration of the example.
    pub fn start_with_gateway() -> Option<(NpmProvider, Gateway)> {
        let config = Config::new(ports::free());
        let provider = NpmProvider::start(&[config.listener(0).port()])?;
        let gateway = provider.start_gateway(config);
        Some((provider, gateway))
    }

    /// Starts a gateway that has the configuration of the example.
    pub fn start_gateway(&self, config: Config) -> Gateway {
        self.start_gateway_with(config, |text| text)
    }

    /// The same, with this change of the configuration.
    pub fn start_gateway_with(
        &self,
        config: Config,
        vary: impl FnOnce(String) -> String,
    ) -> Gateway {
        let file = self.gateway_file(&config, vary);
        let gateway = Gateway::spawn_from(config, file);
        eventually("the gateway is ready", || {
            let response = Request::get("/ready").try_send(gateway.admin).ok()?;
            (response.status == 200).then_some(())
        });
        gateway
    }

    pub fn issuer(&self) -> String {
        format!("http://localhost:{}", self.provider)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with the sessions and grants that it has kept.
    pub fn restart(&mut self) {
        let (provider, app) = (self.provider, self.app);
        self.child = serve(
            &self.program,
            provider,
            app,
            &self.gateways,
            &self.client,
            self.state.path(),
        );
        self.await_ready();
    }

    fn await_ready(&self) {
        let address = ([127, 0, 0, 1], self.provider).into();
        eventually("the provider is ready", || {
            let metadata = Request::get("/.well-known/openid-configuration");
            (metadata.try_send(address).ok()?.status == 200).then_some(())
        });
    }
}

impl Drop for NpmProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(
    program: &Path,
    provider: u16,
    app: u16,
    gateways: &[String],
    client: &Value,
    state: &Path,
) -> Child {
    Command::new("node")
        .arg(program)
        .env("PROVIDER_PORT", provider.to_string())
        .env("APP_PORT", app.to_string())
        .env("GATEWAYS", gateways.join(","))
        .env("CLIENT", client.to_string())
        .env("STATE_FILE", state.join("state.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
