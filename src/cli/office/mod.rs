//! Whom the commands about users and sessions ask: the admin endpoints. Where the store is Redis they
//! run in this process, over the configured store and database. A store in memory is known to nobody
//! but the running gateway, so there its admin listener is asked.

mod opening;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use http::{Method, Request, header};
use opening::{NO_TOKEN, await_store, desk, gateway_to_ask};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;

use super::remark;
use crate::directory::{self, Directory};
use crate::settings::{Engine, Live, Settings};
use crate::store::Store;

/// How long a store may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of one page of a list, generously.
const ANSWER_MAX: usize = 16 << 20;

/// What a command is about, and so who has to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// What is in the database only.
    People,
    /// People and their sessions. A gateway that does not run has none in its memory, so then the
    /// database is all there is to change.
    PeopleAndSessions,
    /// Sessions; in memory there are none without the gateway.
    Sessions,
}

/// Where the admin endpoints are, and the database to find users in.
pub(super) struct Office {
    directory: Directory,
    desk: Reach,
    token: SecretString,
}

enum Reach {
    Here(Router, Store),
    Gateway(reqwest::Client, SocketAddr),
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Unanswered {
    fn from(error: anyhow::Error) -> Unanswered {
        Unanswered::Failed(error)
    }
}

/// An endpoint's no.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub(super) struct Refused {
    pub(super) code: String,
    message: String,
    /// Each field and what is wrong with it.
    pub(super) fields: Vec<(String, String)>,
}

impl Unanswered {
    /// Whether what was asked about does not exist.
    pub(super) fn not_found(&self) -> bool {
        matches!(self, Unanswered::Refused(refused) if refused.code == "NOT_FOUND")
    }
}

/// Opens the office that a configuration file describes, and tells a story there.
pub(super) fn visit<T>(
    config: &Path,
    matter: Matter,
    story: impl AsyncFnOnce(&Office) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let settings = crate::config::load(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be started")?;
    runtime.block_on(async {
        let office = Office::open(settings, matter).await?;
        let told = story(&office).await;
        office.close().await;
        told
    })
}

impl Office {
    async fn open(settings: Settings, matter: Matter) -> anyhow::Result<Office> {
        let Settings { boot, live, .. } = settings;
        let directory = Directory::open(&boot.database)
            .await
            .context("the database could not be opened")?;
        if let Some((client, admin)) = gateway_to_ask(&boot, &live, matter).await? {
            return Ok(Office {
                directory,
                token: live.admin_token.context(NO_TOKEN)?,
                desk: Reach::Gateway(client, admin),
            });
        }
        // Who can read the file with the secrets is an operator here, whatever token it names.
        let token = SecretString::from(hex::encode(rand::random::<[u8; 32]>()));
        let live = Live {
            admin_token: Some(token.clone()),
            ..live
        };
        let desk = desk(&boot, live, directory.clone())?;
        if let Engine::Redis(address) = &boot.store.engine
            && matter != Matter::People
        {
            await_store(&desk.store, address).await?;
        }
        let store = desk.store.clone();
        Ok(Office {
            directory,
            desk: Reach::Here(crate::gateway::admin::router(desk), store),
            token,
        })
    }

    /// Ends it in good order: the events of what was done here are for the whole fleet.
    async fn close(self) {
        if let Reach::Here(_, store) = &self.desk
            && store.write_journal().await.is_err()
        {
            store.wait_until_up(PATIENCE).await;
            if store.write_journal().await.is_err() {
                remark("it is done, but the store did not take the event of it");
            }
        }
        self.directory.close().await;
    }

    /// Asks an admin endpoint; gives the `data` of its answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, Unanswered> {
        let answer = match &self.desk {
            Reach::Here(router, _) => self.ask_here(router, method, target, body).await,
            Reach::Gateway(client, admin) => {
                self.ask_gateway(client, *admin, method, target, body).await
            }
        }?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        let mut answer: Value =
            serde_json::from_slice(&answer).context("the answer is not the JSON expected")?;
        match answer.get_mut("data") {
            Some(data) => Ok(data.take()),
            None => Err(refused(&answer).into()),
        }
    }

    async fn ask_here(
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
        let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_MAX).await?;
        Ok(bytes.to_vec())
    }

    async fn ask_gateway(
        &self,
        client: &reqwest::Client,
        admin: SocketAddr,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Vec<u8>> {
        let mut request = client
            .request(method, format!("http://{admin}{target}"))
            .header(header::AUTHORIZATION, self.bearer());
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await;
        let answer = answer.with_context(|| format!("the gateway at {admin} does not answer"))?;
        let bytes = answer.bytes().await;
        let bytes = bytes.with_context(|| format!("the gateway at {admin} broke off"))?;
        Ok(bytes.to_vec())
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose_secret())
    }

    /// Finds a user by email address, username or id; gives the id.
    pub(super) async fn find_user(&self, named: &str) -> Result<Option<String>, directory::Error> {
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
    pub(super) async fn user(&self, named: &str) -> anyhow::Result<String> {
        self.find_user(named)
            .await?
            .with_context(|| format!("there is no user {named}"))
    }
}

fn refused(answer: &Value) -> Refused {
    let text = |pointer: &str| {
        let text = answer.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or("no reason given").to_owned()
    };
    let fields = answer.pointer("/error/fields").and_then(Value::as_object);
    let fields = fields.into_iter().flatten().map(|(field, problem)| {
        let problem = problem.as_str().unwrap_or_default();
        (field.clone(), problem.to_owned())
    });
    Refused {
        code: text("/error/code"),
        message: text("/error/message"),
        fields: fields.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_with_its_fields() {
        let answer = serde_json::json!({"success": false, "error": {
            "code": "VALIDATION_FAILED", "message": "Wrong.", "fields": {"email": "is no address"},
        }});
        let read = refused(&answer);
        assert_eq!(read.to_string(), "Wrong. (VALIDATION_FAILED)");
        assert_eq!(
            read.fields,
            [("email".to_owned(), "is no address".to_owned())]
        );
    }
}
