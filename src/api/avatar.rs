//! The caller's avatar.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, header};

use super::ApiState;
use super::body::has_content_coding;
use super::caller::AuthenticatedCaller;
use super::response;
use super::view::{self, AvatarView, Success};
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::MAX_PICTURE;

/// Restricts what a browser can do with the bytes to displaying them as a picture.
const SAFE_HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_DISPOSITION, "inline; filename=\"avatar\""),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-site",
    ),
];

/// Get the avatar
#[utoipa::path(
    get,
    path = "/profile/avatar",
    tag = "profile",
    responses(
        (
            status = 200,
            description = "The picture",
            content(
                (Vec<u8> = "image/png"),
                (Vec<u8> = "image/jpeg"),
                (Vec<u8> = "image/gif"),
                (Vec<u8> = "image/webp"),
            ),
        ),
        (status = 404, description = "The caller has no avatar"),
    ),
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let user = caller.find_user(&state).await?;
    let avatar = state.accounts.avatar(&user.id).await?;
    let avatar = avatar.ok_or(Refusal::NotFound)?;
    let kind = [(header::CONTENT_TYPE, avatar.info.media_type)];
    Ok((kind, SAFE_HEADERS, Body::from(avatar.bytes)).into_response())
}

/// Upload an avatar
///
/// The bytes of a PNG, JPEG, GIF or WebP picture of at most 1 MiB; the type is detected from the
/// content. `POST`, as forms send it, is equivalent.
#[utoipa::path(
    method(put, post),
    path = "/profile/avatar",
    tag = "profile",
    request_body(content(
        (Vec<u8> = "image/png"),
        (Vec<u8> = "image/jpeg"),
        (Vec<u8> = "image/gif"),
        (Vec<u8> = "image/webp"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "The avatar is stored", body = Success<AvatarView>),
        (status = 403, description = "The caller is a user of a provider"),
        (status = 404, description = "The caller is not a user of this gateway"),
    ),
)]
pub(super) async fn put(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let user = caller.find_user_to_change(&state).await?;
    let (parts, body) = request.into_parts();
    if !may_be_picture(&parts.headers) {
        return Err(Refusal::UnsupportedMediaType.into());
    }
    let bytes = axum::body::to_bytes(body, MAX_PICTURE)
        .await
        .map_err(|_| Rejection::from(Refusal::BodyTooLarge))?;
    let about = state.accounts.put_avatar(&user.id, bytes.to_vec()).await?;
    Ok(response::data(&view::avatar(&about)))
}

/// Delete the avatar
#[utoipa::path(
    delete,
    path = "/profile/avatar",
    tag = "profile",
    responses(
        (status = 204, description = "The avatar is deleted"),
        (status = 403, description = "The caller is a user of a provider"),
        (status = 404, description = "The caller has no avatar"),
    ),
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let user = caller.find_user_to_change(&state).await?;
    state.accounts.drop_avatar(&user.id).await?;
    Ok(response::no_content())
}

/// Form and HTML bodies are rejected, whatever they contain.
fn may_be_picture(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    if has_content_coding(headers) {
        return false;
    }
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    kind.starts_with("image/") || kind == "application/octet-stream"
}
