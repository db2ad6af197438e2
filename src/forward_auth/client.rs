//! The client of the original request.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::CallFault;
use super::call_fault::FORWARDED_FOR;
use crate::pipeline::fields::text_of;

/// Reads the client from all lines of `X-Forwarded-For`: the rightmost hop that is not a trusted proxy;
/// the leftmost, if all are.
///
/// # Errors
/// There is no hop, or one is not an address.
pub fn read_client<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> Result<IpAddr, CallFault> {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let (mut leftmost, mut client) = (None, None);
    for line in lines {
        let line = text_of(line).ok_or(FORWARDED_FOR.malformed)?;
        for hop in line.split(',') {
            let ip = parse_hop(hop.trim_ascii()).ok_or(FORWARDED_FOR.malformed)?;
            leftmost.get_or_insert(ip);
            if !is_trusted(ip) {
                client = Some(ip);
            }
        }
    }
    client.or(leftmost).ok_or(FORWARDED_FOR.missing)
}

/// Parses an address, with or without a port; IPv4-mapped IPv6 becomes IPv4.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let ip = hop.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    let ip = ip.or_else(|| {
        let bracketed = hop.strip_prefix('[')?.strip_suffix(']')?;
        bracketed.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
    });
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn client_is_the_rightmost_hop_that_is_not_trusted() {
        let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        for (lines, expected) in [
            (&["192.0.2.7"][..], Ok("192.0.2.7")),
            (&["6.6.6.6, 192.0.2.7,10.1.1.1"], Ok("192.0.2.7")),
            (&["6.6.6.6", "192.0.2.7 , 10.0.0.9"], Ok("192.0.2.7")),
            (&["192.0.2.7", "10.0.0.9"], Ok("192.0.2.7")),
            (&["10.0.0.1, 10.0.0.2"], Ok("10.0.0.1")),
            (&["::ffff:192.0.2.7"], Ok("192.0.2.7")),
            (&["192.0.2.7:4711"], Ok("192.0.2.7")),
            (&["[2001:db8::1]:4711"], Ok("2001:db8::1")),
            (&["[2001:db8::1]"], Ok("2001:db8::1")),
            (&["2001:db8::1"], Ok("2001:db8::1")),
            (&[], Err(FORWARDED_FOR.missing)),
            (&[""], Err(FORWARDED_FOR.malformed)),
            (&["192.0.2.7,"], Err(FORWARDED_FOR.malformed)),
            (&["192.0.2.7", ""], Err(FORWARDED_FOR.malformed)),
            (&["unknown, 192.0.2.7"], Err(FORWARDED_FOR.malformed)),
            (&["192.0.2.7:x"], Err(FORWARDED_FOR.malformed)),
            (&["192.0.2"], Err(FORWARDED_FOR.malformed)),
            (&["[192.0.2.7]"], Err(FORWARDED_FOR.malformed)),
            (&["[::1"], Err(FORWARDED_FOR.malformed)),
            (&["192.0.2.7 10.0.0.1"], Err(FORWARDED_FOR.malformed)),
            (&["\u{e4}"], Err(FORWARDED_FOR.malformed)),
        ] {
            let found = read_client(lines.iter().map(|line| line.as_bytes()), &trusted);
            let expected = expected.map(|ip| ip.parse().unwrap());
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
