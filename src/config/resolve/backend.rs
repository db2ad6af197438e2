use http::{HeaderName, Method};
use url::Url;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::backend as file;
use crate::config::file::routing::upstream::UpstreamTls;
use crate::settings::backend::{BackendSettings, ResponseField, SignInResponse};

/// The backend that checks credentials.
pub(super) fn backend(
    written: &file::BackendIdentity,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<BackendSettings> {
    let login = parse_login(&written.login);
    if login.is_none() {
        let message = "this is not a method and an address like POST http://127.0.0.1:3000/login";
        review.error(&place.key("login"), message);
    }
    let mut source = |name: &str, written: Option<&str>| {
        let found = written.map(parse_response_field);
        if found.as_ref().is_some_and(Option::is_none) {
            let message = "this is neither a JSON pointer like /user/id nor header:NAME";
            review.error(&place.key(name), message);
        }
        found.flatten()
    };
    let user_id = source("user_id", Some(&written.user_id));
    let email = source("email", written.email.as_deref());
    let name = source("name", written.name.as_deref());
    let roles = source("roles", written.roles.as_deref());
    let scopes = source("scopes", written.scopes.as_deref());
    for (index, member) in written.account.iter().enumerate() {
        if member.is_empty() {
            let message = "the name of a member must not be empty";
            review.error(&place.key("account").item(index), message);
        }
    }
    let timeout = review.require_positive(&place.key("timeout"), written.timeout);
    let tls_place = place.key("tls");
    let tls = tls(&written.tls, &tls_place, review);
    let (method, login) = login?;
    let tls = tls?;
    if login.scheme() != "https" && (tls.ca.is_some() || tls.client.is_some()) {
        let message = "\"tls\" is given, but \"login\" is not https";
        review.error_at_key(&tls_place, message);
    }
    Some(BackendSettings {
        method,
        login,
        tls,
        user_id: user_id?,
        email,
        name,
        roles,
        scopes,
        account: written.account.clone(),
        response: match written.answer {
            file::SignInResponse::Replace => SignInResponse::Replace,
            file::SignInResponse::Pass => SignInResponse::Pass,
        },
        pass_set_cookie: written.pass_set_cookie,
        timeout,
        concurrency: usize::try_from(written.concurrency).unwrap_or(1),
    })
}

/// Verification as towards an upstream, by the name in the address.
fn tls(
    written: &file::BackendTls,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<crate::settings::UpstreamTls> {
    let written = UpstreamTls {
        ca: written.ca.clone(),
        cert: written.cert.clone(),
        key: written.key.clone(),
        server_name: None,
    };
    super::upstreams::upstream_tls(&written, place, review)
}

/// Reads `POST http://host:port/path`. It may hold a password by mistake, so it is not shown.
fn parse_login(written: &str) -> Option<(Method, Url)> {
    let (method, address) = written.split_once(' ')?;
    let method = match method {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        _ => return None,
    };
    let url = Url::parse(address.trim_start()).ok()?;
    let sound = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.port() != Some(0)
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    sound.then_some((method, url))
}

fn parse_response_field(written: &str) -> Option<ResponseField> {
    if written.starts_with('/') {
        return Some(ResponseField::Pointer(written.to_owned()));
    }
    let name = written.strip_prefix("header:")?;
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some(ResponseField::Header(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_a_method_and_an_address() {
        for (written, expected) in [
            ("POST http://127.0.0.1:3000/login", true),
            ("PUT https://id.example.com/a/b?c=d", true),
            ("POST  http://[::1]/", true),
            ("http://127.0.0.1:3000/login", false),
            ("GET http://127.0.0.1:3000/login", false),
            ("post http://127.0.0.1:3000/login", false),
            ("POST", false),
            ("POST /login", false),
            ("POST ftp://a/login", false),
            ("POST http://user:secret@a/login", false),
            ("POST http://a/login#x", false),
            ("POST http://a:0/login", false),
        ] {
            assert_eq!(parse_login(written).is_some(), expected, "{written}");
        }
    }

    #[test]
    fn response_field_is_a_pointer_or_a_header() {
        let header = |name| Some(ResponseField::Header(HeaderName::from_static(name)));
        for (written, expected) in [
            (
                "/user/id",
                Some(ResponseField::Pointer("/user/id".to_owned())),
            ),
            ("header:X-User-Id", header("x-user-id")),
            ("header:", None),
            ("header:a b", None),
            ("user.id", None),
            ("", None),
        ] {
            assert_eq!(parse_response_field(written), expected, "{written}");
        }
    }
}
