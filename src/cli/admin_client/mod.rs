//! Client of the admin endpoints, for the commands about users and sessions.
//!
//! With Redis as the store, the endpoints run in this process, on the configured store and
//! database. A store in memory exists only in the running gateway, so requests go to its admin
//! listener.

mod transport;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use transport::{NO_TOKEN, find_gateway, wait_for_store};
use url::Url;

use super::{ConfigArgs, new_metrics, print_error_line};
use crate::api::admin::LocalEndpoints;
use crate::config::{self, ConfigSource, Purpose};
use crate::database::{self, Database};
use crate::gateway::Services;
use crate::http_client::HttpClient;
use crate::pipeline::snapshot::Snapshot;
use crate::proxy;
use crate::settings::{Engine, Reloadable, Settings};
use crate::store::Store;

/// Time limit for connecting to the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of a response, in bytes; far above that of one page of a list.
const MAX_RESPONSE: usize = 16 << 20;

/// The data that a command needs, which determines where its requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Data in the database only.
    Users,
    /// Users and their sessions. If a gateway with its store in memory does not run, there are no
    /// sessions, and only the database is changed.
    UsersAndSessions,
    /// Sessions. With a store in memory, the gateway must run.
    Sessions,
    /// A new session and its tokens. With a store in memory, the gateway must run.
    NewSession,
}

impl Needs {
    /// Determines the secrets that the requests need in this process.
    fn purpose(self) -> Purpose {
        match self {
            Needs::Users => Purpose::Database,
            Needs::UsersAndSessions | Needs::Sessions => Purpose::Sessions,
            Needs::NewSession => Purpose::IssueTokens,
        }
    }
}

/// Client of the admin endpoints, with the database to find users in.
pub(super) struct AdminClient {
    database: Database,
    transport: Transport,
    token: SecretString,
}

enum Transport {
    InProcess(LocalEndpoints, Store),
    Gateway(HttpClient, SocketAddr),
}

/// Reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Rejected(#[from] ErrorResponse),
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for RequestError {
    fn from(error: anyhow::Error) -> RequestError {
        RequestError::Failed(error)
    }
}

/// An error response of an endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub(super) struct ErrorResponse {
    pub(super) code: String,
    message: String,
    /// Each invalid field with its problem.
    pub(super) fields: Vec<(String, String)>,
}

impl RequestError {
    /// Whether the requested object does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, RequestError::Rejected(response) if response.code == "NOT_FOUND")
    }
}

/// Opens the client for a configuration file and runs `action` with it.
pub(super) fn with_client<T>(
    config: &ConfigArgs,
    needs: Needs,
    action: impl AsyncFnOnce(&AdminClient) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let source = config.open();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let client = AdminClient::open(&source, needs).await?;
        let result = action(&client).await;
        client.close().await;
        result
    })
}

impl AdminClient {
    async fn open(source: &ConfigSource, needs: Needs) -> anyhow::Result<AdminClient> {
        let Settings { boot, .. } = config::load(source, Purpose::Database)?;
        let database = Database::open(&boot.database)
            .await
            .context("cannot open the database")?;
        if let Some((client, admin)) = find_gateway(&boot, needs).await? {
            let settings = config::load(source, Purpose::CallGateway)?;
            return Ok(AdminClient {
                database,
                token: settings.reloadable.admin_token.context(NO_TOKEN)?,
                transport: Transport::Gateway(client, admin),
            });
        }
        let Settings { boot, reloadable } = config::load(source, needs.purpose())?;
        // Read access to the configuration with its secrets authorizes this, whatever the admin
        // token.
        let token = SecretString::from(hex::encode(rand::random::<[u8; 32]>()));
        let reloadable = Reloadable {
            admin_token: Some(token.clone()),
            ..reloadable
        };
        let metrics = new_metrics()?;
        let snapshot = Snapshot::offline(reloadable, &metrics);
        let services = Services::build(
            boot,
            snapshot,
            proxy::probe_sender(),
            database.clone(),
            metrics,
            1,
        )?;
        if let Engine::Redis(address) = &services.boot.store.engine
            && needs != Needs::Users
        {
            wait_for_store(&services.store, address).await?;
        }
        Ok(AdminClient {
            database,
            transport: Transport::InProcess(services.local_endpoints(), services.store),
            token,
        })
    }

    /// Closes the client after writing its security events to the store.
    async fn close(self) {
        if let Transport::InProcess(_, store) = &self.transport
            && store.flush_journal().await.is_err()
        {
            store.wait_until_up(STORE_TIMEOUT).await;
            if store.flush_journal().await.is_err() {
                print_error_line("done, but the store did not accept the security event");
            }
        }
        self.database.close().await;
    }

    /// Sends a request to an admin endpoint and returns the `data` of the response.
    pub(super) async fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, RequestError> {
        let response = match &self.transport {
            Transport::InProcess(endpoints, _) => {
                self.request_in_process(endpoints, method, target, body)
                    .await
            }
            Transport::Gateway(client, admin) => {
                self.request_gateway(client, *admin, method, target, body)
                    .await
            }
        }?;
        if response.is_empty() {
            return Ok(Value::Null);
        }
        let mut response: Value =
            serde_json::from_slice(&response).context("the response is not the expected JSON")?;
        match response.get_mut("data") {
            Some(data) => Ok(data.take()),
            None => Err(parse_error_response(&response).into()),
        }
    }

    async fn request_in_process(
        &self,
        endpoints: &LocalEndpoints,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, self.bearer())
            .body(body.map(Value::to_string).unwrap_or_default())?;
        Ok(endpoints.call(request, MAX_RESPONSE).await?)
    }

    async fn request_gateway(
        &self,
        client: &HttpClient,
        admin: SocketAddr,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Bytes> {
        let url = Url::parse(&format!("http://{admin}{target}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.bearer().try_into()?);
        if body.is_some() {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = client.send(method, url, headers, body.into()).await;
        let response =
            response.with_context(|| format!("the gateway at {admin} does not respond"))?;
        let bytes = response.read_body(MAX_RESPONSE).await;
        let bytes = bytes
            .with_context(|| format!("the response of the gateway at {admin} is incomplete"))?;
        Ok(bytes)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose_secret())
    }

    /// Finds a user by email address, username or ID, and returns the ID.
    pub(super) async fn find_user(&self, named: &str) -> Result<Option<String>, database::Error> {
        let lower = named.to_ascii_lowercase();
        let user = if named.contains('@') {
            self.database.user_by_email(&lower).await?
        } else {
            match self.database.user(named).await? {
                Some(user) => Some(user),
                None => self.database.user_by_username(&lower).await?,
            }
        };
        Ok(user.map(|user| user.id))
    }

    /// Finds a user that must exist.
    pub(super) async fn require_user(&self, named: &str) -> anyhow::Result<String> {
        self.find_user(named)
            .await?
            .with_context(|| format!("there is no user {named}"))
    }
}

fn parse_error_response(response: &Value) -> ErrorResponse {
    let text = |pointer: &str| {
        let text = response.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or("no reason given").to_owned()
    };
    let fields = response.pointer("/error/fields").and_then(Value::as_object);
    let fields = fields.into_iter().flatten().map(|(field, problem)| {
        let problem = problem.as_str().unwrap_or_default();
        (field.clone(), problem.to_owned())
    });
    ErrorResponse {
        code: text("/error/code"),
        message: text("/error/message"),
        fields: fields.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_response_is_parsed_with_its_fields() {
        let response = serde_json::json!({"success": false, "error": {
            "code": "VALIDATION_FAILED", "message": "Wrong.", "fields": {"email": "is no address"},
        }});
        let parsed = parse_error_response(&response);
        assert_eq!(parsed.to_string(), "Wrong. (VALIDATION_FAILED)");
        assert_eq!(
            parsed.fields,
            [("email".to_owned(), "is no address".to_owned())]
        );
    }
}
