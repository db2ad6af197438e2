//! Whom the commands about users and sessions ask: the admin endpoints. Where the store is Redis they
//! run in this process, over the configured store and database. A store in memory is known to nobody
//! but the running gateway, so there its admin listener is asked.

mod transport;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;
use transport::{NO_TOKEN, find_gateway, wait_for_store};
use url::Url;

use super::{new_metrics, print_error_line};
use crate::database::{self, Database};
use crate::gateway::{self, Services};
use crate::http_client::HttpClient;
use crate::pipeline::snapshot::Snapshot;
use crate::settings::{Engine, Reloadable, Settings};
use crate::store::Store;

/// How long a store may take to be connected to.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of one page of a list, generously.
const MAX_RESPONSE: usize = 16 << 20;

/// What a command is about, and so who has to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// What is in the database only.
    Users,
    /// People and their sessions. A gateway that does not run has none in its memory, so then the
    /// database is all there is to change.
    UsersAndSessions,
    /// Sessions; in memory there are none without the gateway.
    Sessions,
}

/// Where the admin endpoints are, and the database to find users in.
pub(super) struct AdminClient {
    directory: Database,
    transport: Transport,
    token: SecretString,
}

enum Transport {
    InProcess(Router, Store),
    Gateway(HttpClient, SocketAddr),
}

/// Why a question has no answer.
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

/// An endpoint's no.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub(super) struct ErrorResponse {
    pub(super) code: String,
    message: String,
    /// Each field and what is wrong with it.
    pub(super) fields: Vec<(String, String)>,
}

impl RequestError {
    /// Whether what was asked about does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, RequestError::Rejected(refused) if refused.code == "NOT_FOUND")
    }
}

/// Opens the office that a configuration file describes, and tells a story there.
pub(super) fn with_client<T>(
    config: &Path,
    matter: Needs,
    story: impl AsyncFnOnce(&AdminClient) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let settings = crate::config::load(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be started")?;
    runtime.block_on(async {
        let office = AdminClient::open(settings, matter).await?;
        let told = story(&office).await;
        office.close().await;
        told
    })
}

impl AdminClient {
    async fn open(settings: Settings, matter: Needs) -> anyhow::Result<AdminClient> {
        let Settings {
            boot,
            reloadable: live,
            ..
        } = settings;
        let directory = Database::open(&boot.database)
            .await
            .context("the database could not be opened")?;
        if let Some((client, admin)) = find_gateway(&boot, &live, matter).await? {
            return Ok(AdminClient {
                directory,
                token: live.admin_token.context(NO_TOKEN)?,
                transport: Transport::Gateway(client, admin),
            });
        }
        // Who can read the file with the secrets is an operator here, whatever token it names.
        let token = SecretString::from(hex::encode(rand::random::<[u8; 32]>()));
        let live = Reloadable {
            admin_token: Some(token.clone()),
            ..live
        };
        let metrics = new_metrics()?;
        let snapshot = Snapshot::offline(live, &metrics);
        let services = Services::build(boot, snapshot, directory.clone(), metrics, 1)?;
        if let Engine::Redis(address) = &services.boot.store.engine
            && matter != Needs::Users
        {
            wait_for_store(&services.store, address).await?;
        }
        let router = gateway::admin::local_router(&services);
        Ok(AdminClient {
            directory,
            transport: Transport::InProcess(router, services.store),
            token,
        })
    }

    /// Ends it in good order: the events of what was done here are for the whole fleet.
    async fn close(self) {
        if let Transport::InProcess(_, store) = &self.transport
            && store.flush_journal().await.is_err()
        {
            store.wait_until_up(STORE_TIMEOUT).await;
            if store.flush_journal().await.is_err() {
                print_error_line("it is done, but the store did not take the event of it");
            }
        }
        self.directory.close().await;
    }

    /// Asks an admin endpoint; gives the `data` of its answer.
    pub(super) async fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, RequestError> {
        let answer = match &self.transport {
            Transport::InProcess(router, _) => {
                self.request_in_process(router, method, target, body).await
            }
            Transport::Gateway(client, admin) => {
                self.request_gateway(client, *admin, method, target, body)
                    .await
            }
        }?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        let mut answer: Value =
            serde_json::from_slice(&answer).context("the answer is not the JSON expected")?;
        match answer.get_mut("data") {
            Some(data) => Ok(data.take()),
            None => Err(parse_error_response(&answer).into()),
        }
    }

    async fn request_in_process(
        &self,
        router: &Router,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Vec<u8>> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, self.bearer())
            .body(Body::from(body.map(Value::to_string).unwrap_or_default()))?;
        let answer = router.clone().oneshot(request).await?;
        let bytes = axum::body::to_bytes(answer.into_body(), MAX_RESPONSE).await?;
        Ok(bytes.to_vec())
    }

    async fn request_gateway(
        &self,
        client: &HttpClient,
        admin: SocketAddr,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Vec<u8>> {
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
        let bytes =
            bytes.with_context(|| format!("the response of the gateway at {admin} broke off"))?;
        Ok(bytes.to_vec())
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose_secret())
    }

    /// Finds a user by email address, username or id; gives the id.
    pub(super) async fn find_user(&self, named: &str) -> Result<Option<String>, database::Error> {
        let lower = named.to_ascii_lowercase();
        let found = if named.contains('@') {
            self.directory.user_by_email(&lower).await?
        } else {
            match self.directory.user(named).await? {
                Some(user) => Some(user),
                None => self.directory.user_by_username(&lower).await?,
            }
        };
        Ok(found.map(|user| user.id))
    }

    /// Finds a user who has to exist.
    pub(super) async fn require_user(&self, named: &str) -> anyhow::Result<String> {
        self.find_user(named)
            .await?
            .with_context(|| format!("there is no user {named}"))
    }
}

fn parse_error_response(answer: &Value) -> ErrorResponse {
    let text = |pointer: &str| {
        let text = answer.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or("no reason given").to_owned()
    };
    let fields = answer.pointer("/error/fields").and_then(Value::as_object);
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
        let answer = serde_json::json!({"success": false, "error": {
            "code": "VALIDATION_FAILED", "message": "Wrong.", "fields": {"email": "is no address"},
        }});
        let read = parse_error_response(&answer);
        assert_eq!(read.to_string(), "Wrong. (VALIDATION_FAILED)");
        assert_eq!(
            read.fields,
            [("email".to_owned(), "is no address".to_owned())]
        );
    }
}
