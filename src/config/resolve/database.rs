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

/// Where the users and the durable sessions are.
pub(super) fn database(
    written: &file::Database,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<DatabaseSettings> {
    let at = place.key("url");
    // The address may hold a password: it is never shown.
    let message = match written.url.split_once(':') {
        Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
            "" => "the address names no file",
            ":memory:" => "users must outlive the process: name a file",
            path => {
                reject_password(written, place, review);
                return Some(DatabaseSettings::Sqlite(PathBuf::from(path)));
            }
        },
        Some(("postgres" | "postgresql", _)) => {
            return postgres(written, place, review).map(DatabaseSettings::Postgres);
        }
        _ => "the database is sqlite:PATH or postgres://USER@HOST/DATABASE",
    };
    review.error(&at, message);
    None
}

fn reject_password(written: &file::Database, place: &ConfigPath, review: &mut ResolveContext<'_>) {
    for (name, given) in [
        ("password", written.password.is_some()),
        ("password_file", written.password_file.is_some()),
    ] {
        if given {
            let message = format!("\"{name}\" is for PostgreSQL; a SQLite file has none");
            review.error_at_key(&place.key(name), message);
        }
    }
}

fn postgres(
    written: &file::Database,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<PostgresAddress> {
    let password_file = written.password_file.as_deref();
    let password = review.read_secret(place, "password", written.password.as_ref(), password_file);
    let at = place.key("url");
    let mut address = match parse_address(&written.url, written.connections) {
        Ok((url, address)) => match credentials(&url, None, password) {
            Ok((Some(username), password)) => PostgresAddress {
                username,
                password,
                ..address
            },
            Ok((None, _)) => {
                review.error(&at, "the address names no user");
                return None;
            }
            Err(message) => {
                review.error(&at, message);
                return None;
            }
        },
        Err(message) => {
            review.error(&at, message);
            return None;
        }
    };
    let ca = Url::parse(&written.url).ok()?;
    let ca = ca.query_pairs().find(|(name, _)| name == "sslrootcert");
    if let Some((_, path)) = ca {
        let pem = review.read_file(&at, &path)?;
        if let Err(fault) = tls::parse_authorities(&pem) {
            let path = review.display_path(&at, &path);
            review.error(&at, format!("{path}: {fault}"));
        }
        address.ca = Some(pem.to_vec());
    }
    Some(address)
}

/// Reads all but who we are there, which is still empty.
fn parse_address(text: &str, connections: u32) -> Result<(Url, PostgresAddress), &'static str> {
    let url = Url::parse(text).map_err(|_| "this is not an address of a PostgreSQL server")?;
    if url.fragment().is_some() {
        return Err("the address of a PostgreSQL server has no fragment");
    }
    let database = percent_decode_str(url.path().trim_start_matches('/'))
        .decode_utf8()
        .map_err(|_| "the database in the address is not UTF-8")?
        .into_owned();
    if database.is_empty() || database.contains('/') {
        return Err("after the host comes the name of a database, like /portcullis");
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
            "host" => return Err("\"host\" after the question mark is the folder of a socket"),
            _ => return Err("after the question mark come sslmode, sslrootcert and host only"),
        }
    }
    if address.host.is_empty() && address.socket.is_none() {
        return Err("the address names no host");
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
        _ => Err("sslmode is disable, prefer, require, verify-ca or verify-full"),
    }
}
