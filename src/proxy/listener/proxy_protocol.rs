//! The PROXY protocol, versions 1 and 2, by which a proxy that does not speak HTTP names the
//! client.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 1, with its line end (section 2.1 of the specification).
const MAX_LINE: usize = 107;
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

/// The header that the first bytes of a connection form.
#[derive(Debug, PartialEq, Eq)]
enum ProxyHeader {
    /// More bytes are needed.
    Partial,
    Invalid,
    /// `None`: the header names no client (`UNKNOWN`, `LOCAL`); the connection is the proxy's own.
    Complete {
        length: usize,
        client: Option<IpAddr>,
    },
}

/// Reads a PROXY header, version 1 or 2, and nothing beyond it. `None` when it names no client.
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut buffer = [0; 1024];
    loop {
        // Peeked first and consumed afterwards, so that later bytes stay for TLS or HTTP.
        let seen = stream.peek(&mut buffer).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(buffer.get(..seen).unwrap_or_default()) {
            ProxyHeader::Partial if seen < buffer.len() => {
                // More bytes are on their way; `peek` would return at once with the same ones.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            ProxyHeader::Partial | ProxyHeader::Invalid => return Err(invalid()),
            ProxyHeader::Complete { length, client } => {
                let header = buffer.get_mut(..length).ok_or_else(invalid)?;
                stream.read_exact(header).await?;
                return Ok(client.map(|ip| ip.to_canonical()));
            }
        }
    }
}

fn parse(bytes: &[u8]) -> ProxyHeader {
    if bytes.starts_with(UNKNOWN) {
        return parse_unknown(bytes);
    }
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        // The library takes some complete lines for incomplete ones.
        return match line(bytes) {
            Some(_) if bytes.starts_with(b"PROXY") => ProxyHeader::Invalid,
            _ => ProxyHeader::Partial,
        };
    }
    let (length, client) = match parsed {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
                v1::Addresses::Tcp6(tcp) => Some(IpAddr::from(tcp.source_address)),
                v1::Addresses::Unknown => None,
            };
            (header.header.len(), client)
        }
        HeaderResult::V2(Ok(header)) => {
            let client = match (header.command, &header.addresses) {
                (v2::Command::Local, _) => None,
                (_, v2::Addresses::IPv4(tcp)) => Some(tcp.source_address.into()),
                (_, v2::Addresses::IPv6(tcp)) => Some(IpAddr::from(tcp.source_address)),
                (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            };
            (header.header.len(), client)
        }
        _ => return ProxyHeader::Invalid,
    };
    ProxyHeader::Complete { length, client }
}

/// "The receiver must ignore anything presented before the CRLF is found" (section 2.1).
fn parse_unknown(bytes: &[u8]) -> ProxyHeader {
    match bytes.get(UNKNOWN.len()) {
        Some(b' ' | b'\r') | None => {}
        Some(_) => return ProxyHeader::Invalid,
    }
    match line(bytes) {
        Some(length) => ProxyHeader::Complete {
            length,
            client: None,
        },
        None if bytes.len() < MAX_LINE => ProxyHeader::Partial,
        None => ProxyHeader::Invalid,
    }
}

/// The length of the first line, if it is complete.
fn line(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(length: usize, client: Option<[u8; 4]>) -> ProxyHeader {
        ProxyHeader::Complete {
            length,
            client: client.map(IpAddr::from),
        }
    }

    #[test]
    fn version_1_line_is_read_to_its_end() {
        let long = format!("PROXY UNKNOWN {}", "1".repeat(100));
        for (bytes, header) in [
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET",
                complete(36, Some([192, 0, 2, 1])),
            ),
            ("PROXY UNKNOWN\r\nGET", complete(15, None)),
            ("PROXY UNKNOWN 1 2 3 4 5 6\r\nGET", complete(27, None)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", complete(35, None)),
            ("PROXY UNKNOWN  \n \u{e9}\r\n", complete(21, None)),
            ("PROXY UNKNOWN 1 2", ProxyHeader::Partial),
            ("PROXY UNKNOWN", ProxyHeader::Partial),
            ("PROXY UNKNO", ProxyHeader::Partial),
            ("PROXY TCP4 192.0.2.1", ProxyHeader::Partial),
            ("PROXY UNKNOWNS\r\n", ProxyHeader::Invalid),
            (&long, ProxyHeader::Invalid),
            ("PROXY\r\n", ProxyHeader::Invalid),
            ("PROXY TCP4\r\n", ProxyHeader::Invalid),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", ProxyHeader::Invalid),
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
                ProxyHeader::Invalid,
            ),
            ("GET / HTTP/1.1\r\n", ProxyHeader::Invalid),
        ] {
            assert_eq!(parse(bytes.as_bytes()), header, "{bytes:?}");
        }
    }
}
