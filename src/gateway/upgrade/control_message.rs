//! Messages on the control socket: one line of JSON each, and the requester's side.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::{Outcome, START_TIMEOUT};

/// Version of the messages.
const VERSION: u32 = 1;
/// Maximum size of a request, in bytes.
pub(super) const MAX_REQUEST: u64 = 1024;
/// Maximum size of a reply, in bytes.
const MAX_REPLY: u64 = 128 * 1024;
/// Time that a reply may take beside the start of the new process.
const REPLY_TIME: Duration = Duration::from_secs(15);

/// A request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Upgrade {
        /// Even if state in memory is lost.
        force: bool,
    },
}

/// The reply to a request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    Upgraded { process: u32 },
    Failed { errors: Vec<String> },
}

#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    version: u32,
    message: M,
}

impl Request {
    /// Parses a line.
    pub(super) fn parse(line: &[u8]) -> Result<Request, String> {
        let malformed = |_| "the request is malformed".to_owned();
        let envelope: Envelope<serde_json::Value> =
            serde_json::from_slice(line).map_err(malformed)?;
        match envelope.version {
            VERSION => serde_json::from_value(envelope.message).map_err(malformed),
            other => Err(format!(
                "the request has version {other}, and this gateway knows version {VERSION}"
            )),
        }
    }
}

impl Reply {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        to_line(self)
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Reply {
        match outcome {
            Ok(process) => Reply::Upgraded { process },
            Err(errors) => Reply::Failed { errors },
        }
    }
}

fn to_line<M: Serialize>(message: M) -> Vec<u8> {
    let version = VERSION;
    let line = serde_json::to_vec(&Envelope { version, message });
    let mut line = line.unwrap_or_default();
    line.push(b'\n');
    line
}

/// Requests an upgrade from the gateway that listens at this path, and waits for its outcome: the
/// new process, or the errors.
///
/// # Errors
/// No gateway of this user listens there, or it does not reply.
pub fn request_upgrade(path: &Path, force: bool) -> anyhow::Result<Outcome> {
    let context = || format!("no gateway can be reached at {}", path.display());
    let mut stream = UnixStream::connect(path).with_context(context)?;
    let peer = socket_peercred(&stream)?.uid;
    let own = geteuid();
    ensure!(
        own.is_root() || peer == own,
        "{} belongs to user {}, not to user {}",
        path.display(),
        peer.as_raw(),
        own.as_raw()
    );
    stream.set_write_timeout(Some(REPLY_TIME))?;
    stream.set_read_timeout(Some(START_TIMEOUT + REPLY_TIME))?;
    // A gateway that rejects the connection may have closed it already, and has replied.
    let _ = stream.write_all(&to_line(Request::Upgrade { force }));
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_REPLY);
    reader
        .read_until(b'\n', &mut line)
        .context("the gateway did not reply")?;
    let reply: Envelope<Reply> =
        serde_json::from_slice(&line).context("the gateway did not reply")?;
    match reply.message {
        Reply::Upgraded { process } => Ok(Ok(process)),
        Reply::Failed { errors } if errors.is_empty() => bail!("the gateway gave no reason"),
        Reply::Failed { errors } => Ok(Err(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_parsed_by_version() {
        let force = to_line(Request::Upgrade { force: true });
        assert_eq!(Request::parse(&force), Ok(Request::Upgrade { force: true }));
        for (line, expected) in [
            (&b""[..], "malformed"),
            (b"\x00\xff\n", "malformed"),
            (b"GET / HTTP/1.1\r\n", "malformed"),
            (br#"{"version":1,"message":"restart"}"#, "malformed"),
            (br#"{"version":9,"message":"restart"}"#, "version 9"),
        ] {
            let parsed = Request::parse(line);
            let error = parsed.as_ref().err();
            assert!(
                error.is_some_and(|error| error.contains(expected)),
                "{parsed:?}"
            );
        }
    }
}
