//! Classification of errors of the Redis client.
//!
//! Only an error's code is logged: a server may repeat arguments, and with them secrets, in the rest.

use std::error::Error;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::tls;
use crate::store::StoreError;

/// Code with which a replica refuses writes.
pub(in crate::store::redis) const READ_ONLY: &str = "READONLY";
/// Codes with which a server refuses writes but serves reads.
///
/// A replica; a server that cannot persist; one whose memory is full; one with too few replicas.
const WRITE_REFUSAL_CODES: [&str; 4] = [READ_ONLY, "MISCONF", "OOM", "NOREPLICAS"];

/// A failed exchange.
#[derive(Debug, Clone)]
pub(in crate::store::redis) struct ExchangeError {
    pub error: StoreError,
    /// Whether the connection has to be replaced.
    pub fatal: bool,
    /// Whether the server does not have the script.
    pub no_script: bool,
    /// The server's code or the client's category, never arguments.
    pub code: String,
}

impl From<RedisError> for ExchangeError {
    fn from(error: RedisError) -> ExchangeError {
        use ServerErrorKind as S;
        let write_refusal = write_refusal_code(&error);
        let description = find_tls_error(&error)
            .or_else(|| io_error_kind(&error))
            .or_else(|| denied_command(&error));
        let code = match description {
            Some(description) => description,
            None => write_refusal
                .or_else(|| error.code())
                .unwrap_or_else(|| error.category())
                .to_owned(),
        };
        let (store_error, fatal) = match error.kind() {
            _ if error.is_timeout() => (StoreError::Timeout, false),
            ErrorKind::Io => (StoreError::Unreachable, true),
            // Another server may be the master by now.
            _ if write_refusal.is_some() => {
                (StoreError::ReadOnly, write_refusal == Some(READ_ONLY))
            }
            ErrorKind::Server(S::MasterDown | S::BusyLoading | S::ClusterDown) => {
                (StoreError::Unreachable, true)
            }
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => (StoreError::Malformed, false),
            _ if error.is_unrecoverable_error() && error.code().is_none() => {
                (StoreError::Unreachable, true)
            }
            _ if error.code() == Some("WRONGTYPE") => (StoreError::Malformed, false),
            _ => (StoreError::Refused, false),
        };
        ExchangeError {
            error: match error.kind() {
                ErrorKind::AuthenticationFailed => StoreError::Refused,
                _ => store_error,
            },
            fatal,
            no_script: error.kind() == ErrorKind::Server(S::NoScript),
            code,
        }
    }
}

impl ExchangeError {
    /// The server responds, but not in time.
    pub(in crate::store::redis) fn too_slow() -> ExchangeError {
        ExchangeError {
            error: StoreError::BreakerOpen,
            ..ExchangeError::unreachable("too slow")
        }
    }

    /// Too few replicas have confirmed a write.
    pub(in crate::store::redis) fn unreplicated() -> ExchangeError {
        ExchangeError {
            error: StoreError::Unreplicated,
            fatal: false,
            no_script: false,
            code: "WAIT".to_owned(),
        }
    }

    /// The server cannot be used; `code` is the reason for the log.
    pub(in crate::store::redis) fn unreachable(code: &str) -> ExchangeError {
        ExchangeError {
            error: StoreError::Unreachable,
            fatal: true,
            no_script: false,
            code: code.to_owned(),
        }
    }
}

fn find_tls_error(error: &RedisError) -> Option<String> {
    let mut cause = Error::source(error);
    while let Some(inner) = cause {
        let description = match inner.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            Some(shared) => shared.downcast_ref().and_then(tls::describe_tls_error),
            None => inner.downcast_ref().and_then(tls::describe_tls_error),
        };
        if description.is_some() {
            return description;
        }
        cause = inner.source();
    }
    None
}

/// Names the kind of an I/O error, such as "connection refused".
fn io_error_kind(error: &RedisError) -> Option<String> {
    let shared = Error::source(error)?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let kind = shared.downcast_ref::<std::io::Error>()?.kind();
    (kind != std::io::ErrorKind::Other).then(|| kind.to_string())
}

/// Extracts the command that an ACL denies from the server's message: `... the 'get' command`.
///
/// The message is the same for commands in scripts.
fn denied_command(error: &RedisError) -> Option<String> {
    let detail = error.detail()?;
    let (before, rest) = detail.split_once(" the '")?;
    let (command, rest) = rest.split_once('\'')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '|' | '-' | '_' | '.');
    let is_denial = before.contains("permissions to") && rest.starts_with(" command");
    (is_denial && command.chars().all(is_plain)).then(|| format!("NOPERM {command}"))
}

/// The code with which a server refuses a write but serves reads.
///
/// For a command in a script, Redis 6.2 reports it in the message only.
fn write_refusal_code(error: &RedisError) -> Option<&'static str> {
    let detail = error.detail().unwrap_or_default();
    let in_script = detail.starts_with("Error running script");
    WRITE_REFUSAL_CODES.into_iter().find(|code| {
        error.code() == Some(code) || (in_script && detail.contains(&format!(": -{code} ")))
    })
}

/// Whether a reply reports that the server does not have the script.
pub(in crate::store::redis) fn is_no_script(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// Whether a reply reports that the key has another type.
pub(in crate::store::redis) fn is_wrong_type(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "WRONGTYPE")
}

/// Returns the reply, unless it is a server error.
pub(in crate::store::redis) fn reject_server_error(reply: Value) -> Result<Value, StoreError> {
    match reply {
        Value::ServerError(error) => Err(ExchangeError::from(RedisError::from(error)).error),
        reply => Ok(reply),
    }
}

/// Checks that a reply is not a server error.
pub(in crate::store::redis) fn check_server_error(reply: &Value) -> Result<(), StoreError> {
    match reply {
        Value::ServerError(error) => {
            Err(ExchangeError::from(RedisError::from(error.clone())).error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse_error(line: &str) -> ExchangeError {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let Value::ServerError(error) = reply else {
            return ExchangeError::unreachable("no error");
        };
        ExchangeError::from(RedisError::from(error))
    }

    #[test]
    fn refused_writes_are_recognized_in_either_form() {
        for code in WRITE_REFUSAL_CODES {
            let old = format!(
                "ERR Error running script (call to f_0a): @user_script:9: @user_script: 9: \
                 -{code} You cannot write here."
            );
            let new = format!("{code} You cannot write here. script: 0a, on @user_script:9.");
            for line in [old, new] {
                let error = parse_error(&line);
                assert_eq!(error.error, StoreError::ReadOnly, "{line}");
                assert_eq!(error.fatal, code == READ_ONLY, "{line}");
                assert_eq!(error.code, code, "{line}");
            }
        }
        let other =
            parse_error("ERR Error running script (call to f_0a): @user_script:9: no reason");
        assert_eq!((other.error, other.fatal), (StoreError::Refused, false));
    }
}
