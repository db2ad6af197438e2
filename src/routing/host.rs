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

/// The host in an authority, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// This many bytes at its start, which are in lower case.
    Start(usize),
    Normalized(String),
}

/// Extracts the host from an authority (RFC 9110, section 7.2), without port and trailing dot.
///
/// The host is in lower case, and borrowed if it already was. An IPv6 address keeps its brackets,
/// in the form of RFC 5952. User information, lists and paths are rejected.
pub fn host_of(authority: &str) -> Result<Cow<'_, str>, HostError> {
    Ok(match HostName::read(authority.as_bytes())? {
        HostName::Start(length) => authority.get(..length).unwrap_or_default().into(),
        HostName::Normalized(name) => name.into(),
    })
}

impl Default for HostName {
    fn default() -> HostName {
        HostName::Start(0)
    }
}

impl HostName {
    /// Reads an authority as [`host_of`] does.
    ///
    /// # Errors
    /// It has no valid host.
    pub fn read(authority: &[u8]) -> Result<HostName, HostError> {
        if let Some(bracketed) = authority.strip_prefix(b"[") {
            return read_address(bracketed);
        }
        let name = scan_name(authority);
        match authority.get(name.length..) {
            None | Some([]) => {}
            Some([b':', port @ ..]) => check_port(port)?,
            Some(_) => return Err(HostError::BadByte),
        }
        let length = match name.ends_with_dot {
            true => name.length - 1,
            false => name.length,
        };
        match length {
            0 => Err(HostError::Empty),
            1..=MAX_HOST_LENGTH if name.has_empty_label => Err(HostError::EmptyLabel),
            1..=MAX_HOST_LENGTH if name.has_upper => {
                let name = authority.get(..length).map(str::from_utf8);
                let name = name.and_then(Result::ok).ok_or(HostError::BadByte)?;
                Ok(HostName::Normalized(name.to_ascii_lowercase()))
            }
            1..=MAX_HOST_LENGTH => Ok(HostName::Start(length)),
            _ => Err(HostError::TooLong),
        }
    }
}

/// The characters at the start of an authority that a name may have.
struct ScannedName {
    length: usize,
    has_upper: bool,
    has_empty_label: bool,
    ends_with_dot: bool,
}

const LOWER: u8 = 1;
const UPPER: u8 = 2;
const DOT: u8 = 4;

/// What each character is in a name; 0: no name has it.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 0x80 {
        classes[byte] = match byte as u8 {
            // Underscores are not valid in host names, but common in names of containers.
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => LOWER,
            b'A'..=b'Z' => UPPER,
            b'.' => DOT,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn scan_name(authority: &[u8]) -> ScannedName {
    let (mut length, mut all, mut pairs, mut last) = (0, 0, 0, DOT);
    for byte in authority {
        let class = CLASSES[*byte as usize];
        if class == 0 {
            break;
        }
        all |= class;
        pairs |= class & last;
        last = class;
        length += 1;
    }
    ScannedName {
        length,
        has_upper: all & UPPER != 0,
        has_empty_label: pairs & DOT != 0,
        ends_with_dot: length > 0 && last == DOT,
    }
}

/// Reads an IPv6 address behind its opening bracket.
fn read_address(bracketed: &[u8]) -> Result<HostName, HostError> {
    let bracketed = str::from_utf8(bracketed).map_err(|_| HostError::BadByte)?;
    let (address, after) = bracketed.split_once(']').ok_or(HostError::BadAddress)?;
    if !after.is_empty() {
        let port = after.strip_prefix(':').ok_or(HostError::BadByte)?;
        check_port(port.as_bytes())?;
    }
    let address: Ipv6Addr = address.parse().map_err(|_| HostError::BadAddress)?;
    Ok(HostName::Normalized(format!("[{address}]")))
}

/// Returns the port of an authority that [`host_of`] accepts, if it has one.
pub fn port_of(authority: &str) -> Option<u16> {
    let after = authority.rsplit_once(']');
    let after = after.map_or(authority, |(_, after)| after);
    after.split_once(':')?.1.parse().ok()
}

/// Checks a port. An empty one is the default of the scheme (RFC 3986, section 3.2.3).
fn check_port(port: &[u8]) -> Result<(), HostError> {
    let mut number = 0_u32;
    for digit in port {
        if !digit.is_ascii_digit() {
            return Err(HostError::BadPort);
        }
        number = number * 10 + u32::from(digit - b'0');
        if number > u32::from(u16::MAX) {
            return Err(HostError::BadPort);
        }
    }
    Ok(())
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
