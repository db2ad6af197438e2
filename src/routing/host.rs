//! The one reading of a `Host`.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Why a `Host` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than a name can be")]
    TooLong,
    #[error("the host has a byte that no host may hold")]
    BadByte,
    #[error("the host has an empty label")]
    EmptyLabel,
    #[error("the host's port is not a number from 0 to 65535")]
    BadPort,
    #[error("the host is not an IPv6 address between its brackets")]
    BadAddress,
}

/// The longest name in DNS, in characters.
const MAX_HOST_LENGTH: usize = 253;

/// Takes the host from an authority (RFC 9110, section 7.2), without port and trailing dot, in
/// lower case; borrowed when it came so. An IPv6 address keeps its brackets, in the form of RFC
/// 5952. User information, lists and paths are refused.
pub fn host_of(authority: &str) -> Result<Cow<'_, str>, HostError> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or(HostError::BadAddress)?;
        if !after.is_empty() {
            check_port(after.strip_prefix(':').ok_or(HostError::BadByte)?)?;
        }
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::BadAddress)?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let colon = authority.bytes().position(|byte| byte == b':');
    let name = match colon.and_then(|at| authority.split_at_checked(at)) {
        Some((name, port)) => {
            check_port(port.strip_prefix(':').unwrap_or_default())?;
            name
        }
        None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    check_name(name)?;
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Ok(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Ok(Cow::Borrowed(name))
    }
}

/// The port of an authority that [`host_of`] takes; `None`: it names none.
pub fn port_of(authority: &str) -> Option<u16> {
    let after = authority.rsplit_once(']');
    let after = after.map_or(authority, |(_, after)| after);
    after.split_once(':')?.1.parse().ok()
}

fn check_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > MAX_HOST_LENGTH {
        return Err(HostError::TooLong);
    }
    let (mut before, mut empty_label) = (b'.', false);
    for byte in name.bytes() {
        // An underscore is in no host name, but in many a container's.
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(HostError::BadByte);
        }
        empty_label |= byte == b'.' && before == b'.';
        before = byte;
    }
    if empty_label || before == b'.' {
        return Err(HostError::EmptyLabel);
    }
    Ok(())
}

/// An empty port is the scheme's default (RFC 3986, section 3.2.3).
fn check_port(port: &str) -> Result<(), HostError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (port.is_empty() || port.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err(HostError::BadPort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_normalized_without_port_and_trailing_dot() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("example.com:", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            ("my_service", "my_service"),
        ] {
            assert_eq!(host_of(authority).as_deref(), Ok(host), "{authority}");
        }
    }

    #[test]
    fn port_is_parsed() {
        for (authority, port) in [
            ("example.com", None),
            ("example.com:", None),
            ("example.com:8080", Some(8080)),
            ("[::1]", None),
            ("[::1]:8080", Some(8080)),
        ] {
            assert_eq!(port_of(authority), port, "{authority}");
        }
    }

    #[test]
    fn canonical_host_is_borrowed() {
        for authority in ["example.com", "example.com:443", "example.com."] {
            assert!(
                matches!(host_of(authority), Ok(Cow::Borrowed(_))),
                "{authority}"
            );
        }
    }

    #[test]
    fn invalid_hosts_are_rejected() {
        use HostError as F;
        for (authority, fault) in [
            ("", F::Empty),
            (".", F::Empty),
            (":80", F::Empty),
            ("user@example.com", F::BadByte),
            ("user:pw@example.com", F::BadPort),
            ("a.com, b.com", F::BadByte),
            ("a.com,b.com", F::BadByte),
            ("a.com b.com", F::BadByte),
            (" a.com", F::BadByte),
            ("a.com/path", F::BadByte),
            ("a.com:80/path", F::BadPort),
            ("a.com:port", F::BadPort),
            ("a.com:65536", F::BadPort),
            ("a.com:+80", F::BadPort),
            ("a.com:80:80", F::BadPort),
            ("a..com", F::EmptyLabel),
            (".a.com", F::EmptyLabel),
            ("a.com..", F::EmptyLabel),
            ("::1", F::BadPort),
            ("[::1", F::BadAddress),
            ("[::1]x", F::BadByte),
            ("[::1]:x", F::BadPort),
            ("[fe80::1%25eth0]", F::BadAddress),
            ("[1.2.3.4]", F::BadAddress),
            ("exämple.com", F::BadByte),
            ("a%00.com", F::BadByte),
        ] {
            assert_eq!(host_of(authority), Err(fault), "{authority:?}");
        }
        assert_eq!(host_of(&"a".repeat(254)), Err(F::TooLong));
    }
}
