use std::sync::Arc;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::routing::route as file;
use crate::config::resolve::providers::addresses::parse_secure;
use crate::routing::{OnUnauthenticated, SignInPage, SignInPageForm};

/// Resolves the response to a browser that is not signed in.
pub(super) fn resolve(
    raw: &file::OnUnauthenticated,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> OnUnauthenticated {
    let text = match raw {
        file::OnUnauthenticated::Word(file::OnUnauthenticatedWord::Redirect) => {
            return OnUnauthenticated::Redirect;
        }
        file::OnUnauthenticated::Word(file::OnUnauthenticatedWord::Refuse) => {
            return OnUnauthenticated::Refuse;
        }
        file::OnUnauthenticated::Page(page) => &page.0,
    };
    let page = SignInPage::parse(text).map_err(|error| error.to_string());
    let is_url = |page: &SignInPage| page.form() == SignInPageForm::Url;
    let page = match page {
        Ok(page) if is_url(&page) => parse_secure(&page.address("x"))
            .map(|_| page)
            .map_err(str::to_owned),
        page => page,
    };
    match page {
        Ok(page) => OnUnauthenticated::Page(Arc::new(page)),
        Err(message) => {
            context.error(location, message);
            OnUnauthenticated::Refuse
        }
    }
}
