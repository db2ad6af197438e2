use http::{HeaderName, Method};
use url::Url;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::backend as file;
use crate::config::file::routing::upstream::UpstreamTls;
use crate::settings::backend::{BackendSettings, ResponseField, SignInResponse};

/// Resolves the backend that checks credentials.
pub(super) fn backend(
    raw: &file::BackendIdentity,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<BackendSettings> {
    let login = login(&raw.login, &location.key("login"), context);
    let mut field =
        |key: &str, raw: Option<&str>| response_field(raw?, &location.key(key), context);
    let user_id = field("user_id", Some(&raw.user_id));
    let email = field("email", raw.email.as_deref());
    let name = field("name", raw.name.as_deref());
    let roles = field("roles", raw.roles.as_deref());
    let scopes = field("scopes", raw.scopes.as_deref());
    check_account_members(&raw.account, &location.key("account"), context);
    let timeout = context.require_positive(&location.key("timeout"), raw.timeout);
    let tls_location = location.key("tls");
    let tls = tls(&raw.tls, &tls_location, context);
    let (method, login) = login?;
    let tls = tls?;
    if login.scheme() != "https" && (tls.ca.is_some() || tls.client.is_some()) {
        let message = "\"tls\" is set, but \"login\" is not https";
        context.error_at_key(&tls_location, message);
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
        account: raw.account.clone(),
        response: match raw.answer {
            file::SignInResponse::Replace => SignInResponse::Replace,
            file::SignInResponse::Pass => SignInResponse::Pass,
        },
        pass_set_cookie: raw.pass_set_cookie,
        timeout,
        concurrency: usize::try_from(raw.concurrency).unwrap_or(1),
    })
}

fn login(
    raw: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<(Method, Url)> {
    let login = parse_login(raw);
    if login.is_none() {
        let message = "not a method and URL such as POST http://127.0.0.1:3000/login";
        context.error(location, message);
    }
    login
}

fn response_field(
    raw: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ResponseField> {
    let field = parse_response_field(raw);
    if field.is_none() {
        let message = "neither a JSON pointer such as /user/id nor header:NAME";
        context.error(location, message);
    }
    field
}

fn check_account_members(raw: &[String], location: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (index, member) in raw.iter().enumerate() {
        if member.is_empty() {
            let message = "the name of a member must not be empty";
            context.error(&location.item(index), message);
        }
    }
}

/// Resolves the TLS settings, as for an upstream whose name is verified by the host in the URL.
pub(super) fn tls(
    raw: &file::BackendTls,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<crate::settings::UpstreamTls> {
    let raw = UpstreamTls {
        ca: raw.ca.clone(),
        cert: raw.cert.clone(),
        key: raw.key.clone(),
        server_name: None,
    };
    super::upstreams::upstream_tls(&raw, location, context)
}

/// Parses `POST http://host:port/path`. It may contain a password by mistake, so it is not shown.
fn parse_login(text: &str) -> Option<(Method, Url)> {
    let (method, address) = text.split_once(' ')?;
    let method = match method {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        _ => return None,
    };
    let url = Url::parse(address.trim_start()).ok()?;
    let is_valid = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.port() != Some(0)
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    is_valid.then_some((method, url))
}

fn parse_response_field(text: &str) -> Option<ResponseField> {
    if text.starts_with('/') {
        return Some(ResponseField::Pointer(text.to_owned()));
    }
    let name = text.strip_prefix("header:")?;
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some(ResponseField::Header(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_a_method_and_an_address() {
        for (text, expected) in [
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
            assert_eq!(parse_login(text).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn response_field_is_a_pointer_or_a_header() {
        let header = |name| Some(ResponseField::Header(HeaderName::from_static(name)));
        for (text, expected) in [
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
            assert_eq!(parse_response_field(text), expected, "{text}");
        }
    }
}
