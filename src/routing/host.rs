//! Parser of `Host` values.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Reason why a `Host` is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host is empty")]
    Empty,
    #[error("the host is too long")]
    TooLong,
    #[error("the host has an invalid character")]
    BadByte,
    #[error("the host has an empty label")]
    EmptyLabel,
    #[error("the host's port is not a number from 0 to 65535")]
    BadPort,
    #[error("the host has an invalid IPv6 address in brackets")]
    BadAddress,
}

/// Maximum length of a DNS name, in characters.
const MAX_HOST_LENGTH: usize = 253;

/// Extracts the host from an authority (RFC 9110, section 7.2), without port and trailing dot.
///
/// The host is in lower case, and borrowed if it already was. An IPv6 address keeps its brackets,
/// in the form of RFC 5952. User information, lists and paths are rejected.
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
    match check_name(name)? {
        Case::Lower => Ok(Cow::Borrowed(name)),
        Case::Mixed => Ok(Cow::Owned(name.to_ascii_lowercase())),
    }
}

/// Returns the port of an authority that [`host_of`] accepts, if it has one.
pub fn port_of(authority: &str) -> Option<u16> {
    let after = authority.rsplit_once(']');
    let after = after.map_or(authority, |(_, after)| after);
    after.split_once(':')?.1.parse().ok()
}

/// The letters of a name.
enum Case {
    Lower,
    Mixed,
}

fn check_name(name: &str) -> Result<Case, HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > MAX_HOST_LENGTH {
        return Err(HostError::TooLong);
    }
    let (mut previous, mut empty_label, mut case) = (b'.', false, Case::Lower);
    for byte in name.bytes() {
        match byte {
            // Underscores are not valid in host names, but common in names of containers.
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => case = Case::Mixed,
            b'.' => empty_label |= previous == b'.',
            _ => return Err(HostError::BadByte),
        }
        previous = byte;
    }
    if empty_label || previous == b'.' {
        return Err(HostError::EmptyLabel);
    }
    Ok(case)
}

/// Checks a port. An empty one is the default of the scheme (RFC 3986, section 3.2.3).
fn check_port(port: &str) -> Result<(), HostError> {
    let is_numeric = port.bytes().all(|byte| byte.is_ascii_digit());
    if is_numeric && (port.is_empty() || port.parse::<u16>().is_ok()) {
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
        use HostError as E;
        for (authority, error) in [
            ("", E::Empty),
            (".", E::Empty),
            (":80", E::Empty),
            ("user@example.com", E::BadByte),
            ("user:pw@example.com", E::BadPort),
            ("a.com, b.com", E::BadByte),
            ("a.com,b.com", E::BadByte),
            ("a.com b.com", E::BadByte),
            (" a.com", E::BadByte),
            ("a.com/path", E::BadByte),
            ("a.com:80/path", E::BadPort),
            ("a.com:port", E::BadPort),
            ("a.com:65536", E::BadPort),
            ("a.com:+80", E::BadPort),
            ("a.com:80:80", E::BadPort),
            ("a..com", E::EmptyLabel),
            (".a.com", E::EmptyLabel),
            ("a.com..", E::EmptyLabel),
            ("::1", E::BadPort),
            ("[::1", E::BadAddress),
            ("[::1]x", E::BadByte),
            ("[::1]:x", E::BadPort),
            ("[fe80::1%25eth0]", E::BadAddress),
            ("[1.2.3.4]", E::BadAddress),
            ("exämple.com", E::BadByte),
            ("a%00.com", E::BadByte),
        ] {
            assert_eq!(host_of(authority), Err(error), "{authority:?}");
        }
        assert_eq!(host_of(&"a".repeat(254)), Err(E::TooLong));
    }
}
