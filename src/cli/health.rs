//! `portcullis health`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Method};
use url::Url;

use super::wrong_usage;
use crate::http_client::{HttpClient, HttpClientConfig};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the response.
const MAX_BODY: usize = 64 * 1024;

/// `portcullis health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// URL of the admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: String,
}

/// Succeeds if the admin listener reports that the gateway is ready.
pub(super) fn run(args: &HealthArgs) -> anyhow::Result<()> {
    // Not a parser of the argument: its error would repeat a URL that may have a password.
    let admin = admin_url(&args.admin).map_err(|message| wrong_usage(&message))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(query(admin.as_str().trim_end_matches('/')))
}

/// Parses the URL of an admin listener, which may be below a path.
fn admin_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or("--admin is not an HTTP URL such as http://127.0.0.1:9090")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("--admin must have no user and no password: /ready needs none".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("--admin must have no query and no fragment".to_owned());
    }
    Ok(url)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_without_credentials_are_queried() {
        for (text, expected) in [
            ("http://127.0.0.1:9090", None),
            ("https://admin.example/portcullis/", None),
            ("127.0.0.1:9090", Some("is not an HTTP URL")),
            ("ftp://user:hunter2@host", Some("is not an HTTP URL")),
            ("http://user:hunter2@host", Some("no user and no password")),
            ("http://user@host", Some("no user and no password")),
            ("http://host/?a=1", Some("no query and no fragment")),
            ("http://host/#a", Some("no query and no fragment")),
        ] {
            let error = admin_url(text).err();
            let has_expected = match (&error, expected) {
                (Some(error), Some(expected)) => error.contains(expected),
                (error, expected) => error.is_none() && expected.is_none(),
            };
            assert!(has_expected, "{text}: {error:?}");
        }
    }
}
