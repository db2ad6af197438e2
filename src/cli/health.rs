//! `portcullis health`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Method};
use url::Url;

use crate::http_client::{HttpClient, HttpClientConfig};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the response.
const MAX_BODY: usize = 64 * 1024;

/// `portcullis health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// URL of the admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090", value_parser = admin_url)]
    admin: String,
}

/// Checks that a URL has a scheme and a host.
fn admin_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok();
    let is_http = url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match is_http {
        true => Ok(text.to_owned()),
        false => Err("not an HTTP URL such as http://127.0.0.1:9090".to_owned()),
    }
}

/// Succeeds if the admin listener reports that the gateway is ready.
pub(super) fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(query(args.admin.trim_end_matches('/')))
}

async fn query(admin: &str) -> anyhow::Result<()> {
    let url = Url::parse(&format!("{admin}/ready"))?;
    // The gateway is queried directly, not through a proxy of the environment.
    let client = HttpClient::new(&HttpClientConfig {
        timeout: Some(TIMEOUT),
        ..HttpClientConfig::default()
    })
    .context("cannot create an HTTP client")?;
    let response = client.send(Method::GET, url, HeaderMap::new(), Bytes::new());
    let response = response.await;
    let response = response.with_context(|| format!("{admin} does not respond"))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = response.read_body(MAX_BODY).await.unwrap_or_default();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |pointer| body.pointer(pointer).and_then(serde_json::Value::as_str);
    let reason = text("/status").or_else(|| text("/error/message"));
    bail!("not ready: {}", reason.unwrap_or(status.as_str()))
}
