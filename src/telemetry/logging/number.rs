//! Numbers, durations and addresses of log lines, written in place.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The digits of all numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut rest, mut number) = (pairs.as_mut_slice(), 0);
    while let [pair, others @ ..] = rest {
        *pair = [b'0' + number / 10, b'0' + number % 10];
        (rest, number) = (others, number + 1);
    }
    pairs
};

/// The text of all octets with a dot behind it, the first character lowest, and its length.
const OCTETS: [(u32, usize); 256] = {
    let mut octets = [(0, 0); 256];
    let (mut rest, mut number) = (octets.as_mut_slice(), 0);
    while let [octet, others @ ..] = rest {
        let hundreds = ZERO + number / 100;
        let tens = ZERO + number / 10 % 10;
        let ones = ZERO + number % 10;
        *octet = match number {
            0..10 => (ones | DOT << 8, 2),
            10..100 => (tens | ones << 8 | DOT << 16, 3),
            _ => (hundreds | tens << 8 | ones << 16 | DOT << 24, 4),
        };
        (rest, number) = (others, number + 1);
    }
    octets
};
const ZERO: u32 = b'0' as u32;
const DOT: u32 = b'.' as u32;

pub(super) fn write_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a duration in seconds, with six decimals.
pub(super) fn write_seconds(out: &mut Vec<u8>, time: Duration) {
    let micros = (time.subsec_nanos() + 500) / 1000;
    let seconds = time.as_secs().saturating_add((micros / 1_000_000).into());
    let micros = micros % 1_000_000;
    let [a, b] = pair(micros / 10_000);
    let [c, d] = pair(micros / 100 % 100);
    let [e, f] = pair(micros % 100);
    if seconds == 0 {
        return out.extend_from_slice(&[b'0', b'.', a, b, c, d, e, f]);
    }
    write_number(out, seconds);
    out.extend_from_slice(&[b'.', a, b, c, d, e, f]);
}

/// Returns the three digits of a number below 1000.
pub(super) fn three_digits(value: u32) -> [u8; 3] {
    let ([_, a], [b, c]) = (pair(value / 100), pair(value % 100));
    [a, b, c]
}

fn pair(value: u32) -> [u8; 2] {
    PAIRS.get(value as usize).copied().unwrap_or_default()
}

pub(super) fn write_address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => write_ipv4(out, ip),
        // Writing to memory cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

fn write_ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    // At most 16 bytes with the last dot, the first one lowest.
    let (mut text, mut length) = (0_u128, 0);
    for octet in ip.octets() {
        let (octet, added) = OCTETS.get(usize::from(octet)).copied().unwrap_or_default();
        text |= u128::from(octet) << (8 * length);
        length += added;
    }
    let text = text.to_le_bytes();
    out.extend_from_slice(text.get(..length - 1).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn octets_have_no_leading_zeros() {
        for octet in 0..=255 {
            for octets in [
                [octet, 0, 0, 0],
                [0, octet, 9, octet],
                [255, 255, 255, octet],
            ] {
                let ip = IpAddr::from(octets);
                assert_eq!(written(|out| write_address(out, ip)), ip.to_string());
            }
        }
    }

    #[test]
    fn ipv6_is_written_as_the_library_does() {
        for text in ["::", "::1", "2001:db8::7", "::ffff:192.0.2.1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(written(|out| write_address(out, ip)), text);
        }
    }

    #[test]
    fn three_digits_keep_leading_zeros() {
        for value in 0..1000 {
            let digits = three_digits(value);
            let expected = format!("{value:03}");
            assert_eq!(digits, *expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn seconds_are_rounded_to_microseconds(
            seconds in prop_oneof![Just(0), Just(9), 0..1u64 << 40],
            nanos in prop_oneof![0..1_000_000_000u32, 999_999_000..1_000_000_000u32],
        ) {
            let time = Duration::new(seconds, nanos);
            let micros = (time.as_nanos() + 500) / 1000;
            let expected = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            prop_assert_eq!(written(|out| write_seconds(out, time)), expected);
        }

        #[test]
        fn numbers_have_no_leading_zeros(value in prop_oneof![0..1000u64, any::<u64>()]) {
            prop_assert_eq!(written(|out| write_number(out, value)), value.to_string());
        }
    }
}
