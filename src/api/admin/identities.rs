//! Identities of users at providers, linked and unlinked by operators.

use std::sync::Arc;

use axum::extract::{Extension, FromRequest, Path, Request, State};
use axum::response::Response;
use http::StatusCode;

use super::super::body::BodyFields;
use super::super::identities::{IdentitiesView, IdentityView};
use super::super::response;
use super::AdminState;
use super::named_user::NamedUser;
use crate::auth::token::is_user_id;
use crate::identity::{IdentityName, UnlinkedBy};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;
use crate::settings::provider::{Provider, UserStorage};

/// `GET /admin/users/{id}/identities`.
pub(super) async fn list(
    State(state): State<AdminState>,
    NamedUser(user): NamedUser,
) -> Result<Response, Rejection> {
    let identities = state.accounts.identities_of(&user.id).await?;
    Ok(response::data(&IdentitiesView::of(&identities)))
}

/// `POST /admin/users/{id}/identities` `{provider, subject, issuer?}`.
pub(super) async fn link(
    State(state): State<AdminState>,
    NamedUser(user): NamedUser,
    NamedIdentity(named): NamedIdentity,
) -> Result<Response, Rejection> {
    let identity = state.accounts.link_named_identity(&user.id, &named).await?;
    let shown = IdentityView::of(&identity);
    Ok(response::data_with_status(StatusCode::CREATED, &shown))
}

/// `DELETE /admin/users/{id}/identities` `{provider, subject, issuer?}`.
pub(super) async fn unlink_named(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    NamedUser(user): NamedUser,
    NamedIdentity(named): NamedIdentity,
) -> Result<Response, Rejection> {
    let identities = state.accounts.identities_of(&user.id).await?;
    let identity = identities.iter().find(|identity| named.is_of(identity));
    let identity = identity.ok_or(Refusal::NotFound)?;
    unlink_by_id(&state, &snapshot.settings, &user.id, &identity.id).await
}

/// `DELETE /admin/users/{id}/identities/{identity}`.
pub(super) async fn unlink(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    NamedUser(user): NamedUser,
    Path((_, identity)): Path<(String, String)>,
) -> Result<Response, Rejection> {
    unlink_by_id(&state, &snapshot.settings, &user.id, &identity).await
}

async fn unlink_by_id(
    state: &AdminState,
    settings: &Reloadable,
    user: &str,
    identity: &str,
) -> Result<Response, Rejection> {
    let by = UnlinkedBy::Operator;
    let unlinked = state.accounts.unlink_identity(settings, user, identity, by);
    unlinked.await?;
    Ok(response::no_content())
}

/// The identity that the body of a call names.
pub(super) struct NamedIdentity(IdentityName);

impl FromRequest<AdminState> for NamedIdentity {
    type Rejection = Rejection;

    async fn from_request(request: Request, _: &AdminState) -> Result<NamedIdentity, Rejection> {
        let (parts, body) = request.into_parts();
        let snapshot = parts.extensions.get::<Arc<Snapshot>>();
        let settings = &snapshot.ok_or(Refusal::Internal)?.settings;
        let fields = BodyFields::read(&parts.headers, body).await?;
        read_name(settings, fields).map(NamedIdentity)
    }
}

/// Reads the name of an identity. The issuer may be omitted where the provider has only one.
fn read_name(settings: &Reloadable, mut fields: BodyFields) -> Result<IdentityName, Rejection> {
    let name = fields.text("provider");
    let subject = fields.text("subject");
    let issuer = fields.optional_text("issuer");
    if !is_user_id(&subject) {
        fields.add_error("subject", "must be 1 to 255 visible characters");
    }
    let provider = settings.identity.provider(&name);
    let provider = provider.filter(|it| matches!(it.users, UserStorage::Database { .. }));
    if provider.is_none() {
        let problem = "must be a provider with \"users: database\"";
        fields.add_error("provider", problem);
    }
    let issuer = match provider.map(|provider| issuer_of(provider, issuer)) {
        Some(Some(issuer)) => issuer,
        Some(None) => {
            fields.add_error("issuer", "must be an issuer of the provider");
            String::new()
        }
        None => String::new(),
    };
    fields.check()?;
    Ok(IdentityName {
        provider: name,
        issuer,
        subject,
    })
}

/// The issuer of an identity, if it is one of the provider.
fn issuer_of(provider: &Provider, given: Option<String>) -> Option<String> {
    let issuers = provider.issuers();
    match (given, &*issuers) {
        (Some(issuer), all) => all.contains(&issuer).then_some(issuer),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}
