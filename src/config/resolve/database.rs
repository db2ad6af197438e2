use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::storage::credentials;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::storage as file;
use crate::settings::{DatabaseSettings, PostgresAddress, PostgresTls};
use crate::tls;

const POSTGRES_PORT: u16 = 5432;

/// Resolves the database of users and durable sessions.
pub(super) fn database(
    raw: &file::Database,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<DatabaseSettings> {
    let url_location = location.key("url");
    // The URL may contain a password, so it is never shown.
    let message = match raw.url.split_once(':') {
        Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
            "" => "the URL has no file",
            ":memory:" => "users must outlive the process; use a file",
            path => {
                reject_password(raw, location, context);
                return Some(DatabaseSettings::Sqlite(PathBuf::from(path)));
            }
        },
        Some(("postgres" | "postgresql", _)) => {
            return postgres(raw, location, context).map(DatabaseSettings::Postgres);
        }
        _ => "the database must be sqlite:PATH or postgres://USER@HOST/DATABASE",
    };
    context.error(&url_location, message);
    None
}

fn reject_password(raw: &file::Database, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (name, given) in [
        ("password", raw.password.is_some()),
        ("password_file", raw.password_file.is_some()),
    ] {
        if given {
            let message = format!("\"{name}\" applies only to PostgreSQL");
            context.error_at_key(&location.key(name), message);
        }
    }
}

fn postgres(
    raw: &file::Database,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<PostgresAddress> {
    let password_file = raw.password_file.as_deref();
    let password = context.read_secret(location, "password", raw.password.as_ref(), password_file);
    let url_location = location.key("url");
    let mut address = match parse_address(&raw.url, raw.connections) {
        Ok((url, address)) => match credentials(&url, None, password) {
            Ok((Some(username), password)) => PostgresAddress {
                username,
                password,
                ..address
            },
            Ok((None, _)) => {
                context.error(&url_location, "the URL has no user");
                return None;
            }
            Err(message) => {
                context.error(&url_location, message);
                return None;
            }
        },
        Err(message) => {
            context.error(&url_location, message);
            return None;
        }
    };
    let ca = Url::parse(&raw.url).ok()?;
    let ca = ca.query_pairs().find(|(name, _)| name == "sslrootcert");
    if let Some((_, path)) = ca {
        let pem = context.read_file(&url_location, &path)?;
        if let Err(error) = tls::parse_authorities(&pem) {
            let path = context.display_path(&url_location, &path);
            context.error(&url_location, format!("{path}: {error}"));
        }
        address.ca = Some(pem.to_vec());
    }
    Some(address)
}

/// Parses a URL. The user and the password of the result are still empty.
fn parse_address(text: &str, connections: u32) -> Result<(Url, PostgresAddress), &'static str> {
    let url = Url::parse(text).map_err(|_| "not a valid URL of a PostgreSQL server")?;
    if url.fragment().is_some() {
        return Err("the URL of a PostgreSQL server must have no fragment");
    }
    let database = percent_decode_str(url.path().trim_start_matches('/'))
        .decode_utf8()
        .map_err(|_| "the database in the URL is not UTF-8")?
        .into_owned();
    if database.is_empty() || database.contains('/') {
        return Err("the host must be followed by a database name, such as /portcullis");
    }
    let host = url.host_str().unwrap_or_default();
    let mut address = PostgresAddress {
        host: host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port: url.port().unwrap_or(POSTGRES_PORT),
        socket: None,
        database,
        username: String::new(),
        password: None,
        tls: PostgresTls::Prefer,
        ca: None,
        connections,
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "sslmode" => address.tls = parse_tls_mode(&value)?,
            "sslrootcert" => {}
            "host" if value.starts_with('/') => address.socket = Some(PathBuf::from(&*value)),
            "host" => return Err("the parameter \"host\" must be the directory of a unix socket"),
            _ => return Err("the only parameters are sslmode, sslrootcert and host"),
        }
    }
    if address.host.is_empty() && address.socket.is_none() {
        return Err("the URL has no host");
    }
    Ok((url, address))
}

fn parse_tls_mode(text: &str) -> Result<PostgresTls, &'static str> {
    match text {
        "disable" => Ok(PostgresTls::Disable),
        "prefer" => Ok(PostgresTls::Prefer),
        "require" => Ok(PostgresTls::Require),
        "verify-ca" => Ok(PostgresTls::VerifyCa),
        "verify-full" => Ok(PostgresTls::VerifyFull),
        _ => Err("sslmode must be disable, prefer, require, verify-ca or verify-full"),
    }
}
