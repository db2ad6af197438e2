//! The PROXY protocol, versions 1 and 2: how a proxy that does not speak HTTP says who the client is.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// Reads a PROXY header, version 1 or 2, and nothing beyond it.
///
/// `None` when it names nobody (`UNKNOWN`, `LOCAL`): the proxy speaks for itself.
pub async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    use ppp::{HeaderResult, PartialResult, v1, v2};
    use tokio::io::AsyncReadExt;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut buffer = [0; 1024];
    loop {
        // Looked at first and taken after, so that what follows stays for TLS or HTTP.
        let seen = stream.peek(&mut buffer).await?;
        let bytes = buffer.get(..seen).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed = HeaderResult::parse(bytes);
        let (length, ip) = match &parsed {
            parsed if parsed.is_incomplete() && seen < buffer.len() => {
                // More is on its way; `peek` would return at once with the same bytes.
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            HeaderResult::V1(Ok(header)) => {
                let ip = match header.addresses {
                    v1::Addresses::Tcp4(tcp) => Some(tcp.source_address.into()),
                    v1::Addresses::Tcp6(tcp) => Some(IpAddr::from(tcp.source_address)),
                    v1::Addresses::Unknown => None,
                };
                (header.header.len(), ip)
            }
            HeaderResult::V2(Ok(header)) => {
                let ip = match (header.command, &header.addresses) {
                    (v2::Command::Local, _) => None,
                    (_, v2::Addresses::IPv4(tcp)) => Some(tcp.source_address.into()),
                    (_, v2::Addresses::IPv6(tcp)) => Some(IpAddr::from(tcp.source_address)),
                    (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
                };
                (header.header.len(), ip)
            }
            _ => return Err(invalid()),
        };
        let header = buffer.get_mut(..length).ok_or_else(invalid)?;
        stream.read_exact(header).await?;
        return Ok(ip.map(|ip| ip.to_canonical()));
    }
}
