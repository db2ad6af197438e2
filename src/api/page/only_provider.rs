//! `GET sign-in` where a provider is the only way to sign in. There is no page: a browser is sent on
//! to the provider in the same response.

use axum::extract::Request;
use axum::response::Response;
use http::Version;

use super::super::oidc::start::begin_for_page;
use super::super::response::clear_cookie;
use super::super::{ApiState, Caller};
use super::{is_signed_in, page_path, see_other};
use crate::identity::oidc::ProviderClient;
use crate::pipeline::browser_navigation::is_browser_navigation;
use crate::pipeline::facts::{Client, RequestHead};
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::SIGN_IN_PAGE;
use crate::routing::host_of;
use crate::settings::Reloadable;

/// A call of the page.
pub(super) struct Call<'a> {
    pub(super) state: &'a ApiState,
    pub(super) settings: &'a Reloadable,
    pub(super) provider: &'a ProviderClient,
    pub(super) client: &'a Client,
    pub(super) caller: Option<&'a Caller>,
}

impl Call<'_> {
    /// Sends a browser on that navigates here; a program is told that it is not signed in.
    pub(super) async fn show(
        &self,
        navigates: bool,
        target: String,
    ) -> Result<Response, Rejection> {
        if is_signed_in(self.caller)? {
            return Ok(see_other(&target));
        }
        if !navigates || !is_cookie_returned(self.settings, self.client) {
            return Err(Refusal::Unauthenticated.into());
        }
        let response = begin_for_page(
            self.state,
            self.settings,
            self.provider,
            self.client,
            target,
        )
        .await?;
        match self.caller {
            // The rejected cookie would conflict with the new one after the sign-in.
            Some(Caller(Err(_))) => Ok(clear_cookie(response)),
            _ => Ok(response),
        }
    }
}

/// Whether a browser opens the page.
pub(super) fn navigates(request: &Request) -> bool {
    let list: FieldList<'_> = request.headers().iter().map(Field::from).collect();
    is_browser_navigation(&RequestHead {
        method: request.method(),
        version: Version::HTTP_11,
        path: request.uri().path(),
        query: None,
        fields: Fields::new(&list),
    })
}

/// Whether the browser will send the session cookie here once it has one. Otherwise each sign-in that
/// returns here would lead to the next.
fn is_cookie_returned(settings: &Reloadable, client: &Client) -> bool {
    let path = page_path(settings, SIGN_IN_PAGE);
    let cookie = &settings.sessions.cookie;
    host_of(&client.host).is_ok_and(|host| cookie.is_sent_to(&host, &path))
}
