//! The caller's own picture.

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

/// Whatever a browser makes of the bytes, it does nothing with them but show them.
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

/// Show
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
        (status = 404, description = "There is none"),
    ),
)]
pub(super) async fn show(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let user = person.find_user(&desk).await?;
    let avatar = desk.accounts.database().avatar(&user.id).await?;
    let avatar = avatar.ok_or(Refusal::NotFound)?;
    let kind = [(header::CONTENT_TYPE, avatar.info.media_type)];
    Ok((kind, SAFE_HEADERS, Body::from(avatar.bytes)).into_response())
}

/// Give
///
/// The bytes of a PNG, JPEG, GIF or WebP picture of at most 1 MiB; what it is, is found out from
/// them. `POST`, as forms do, is the same.
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
        (status = 200, description = "It is kept", body = Success<AvatarView>),
        (status = 404, description = "The caller is no user of this gateway's"),
    ),
)]
pub(super) async fn put(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let user = person.find_user(&desk).await?;
    let (parts, body) = request.into_parts();
    if !may_be_picture(&parts.headers) {
        return Err(Refusal::UnsupportedMediaType.into());
    }
    let bytes = axum::body::to_bytes(body, MAX_PICTURE)
        .await
        .map_err(|_| Rejection::from(Refusal::BodyTooLarge))?;
    let about = desk.accounts.put_avatar(&user.id, bytes.to_vec()).await?;
    Ok(response::data(&view::avatar(&about)))
}

/// Take away
#[utoipa::path(
    delete,
    path = "/profile/avatar",
    tag = "profile",
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There was none"),
    ),
)]
pub(super) async fn remove(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let user = person.find_user(&desk).await?;
    desk.accounts.drop_avatar(&user.id).await?;
    Ok(response::no_content())
}

/// A form or a page is none, whatever it holds.
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
