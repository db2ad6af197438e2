//! Base62 of fixed length: digits, upper case, lower case; the most significant digit first.

use super::{CHECKSUM_LENGTH, SECRET_LENGTH};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Encodes 256 bits, a number with its most significant byte first.
pub(super) fn encode_bits(mut number: [u8; 32]) -> String {
    encode(SECRET_LENGTH, || {
        number.iter_mut().fold(0, |remainder, byte| {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            value % 62
        })
    })
}

/// Encodes a checksum.
pub(super) fn encode_number(mut number: u32) -> String {
    encode(CHECKSUM_LENGTH, || {
        let digit = number % 62;
        number /= 62;
        digit
    })
}

/// Writes digits, of which `next` returns the least significant one first.
fn encode(length: usize, mut next: impl FnMut() -> u32) -> String {
    let mut digits: Vec<char> = (0..length)
        .map(|_| {
            let digit = DIGITS.get(next() as usize).copied();
            char::from(digit.unwrap_or(b'0'))
        })
        .collect();
    digits.reverse();
    digits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_and_written_in_base62() {
        for (number, expected) in [
            (0, "000000"),
            (61, "00000z"),
            (62, "000010"),
            (10, "00000A"),
            (36, "00000a"),
            (u32::MAX, "4gfFC3"),
        ] {
            assert_eq!(encode_number(number), expected);
        }
    }

    #[test]
    fn bits_fill_their_length() {
        assert_eq!(encode_bits([0; 32]), "0".repeat(43));
        let mut number = [0; 32];
        number[31] = 61;
        assert_eq!(encode_bits(number), format!("{}z", "0".repeat(42)));
        number[30] = 1;
        // 256 + 61 = 5 * 62 + 7
        assert_eq!(encode_bits(number), format!("{}57", "0".repeat(41)));
        let largest = encode_bits([0xff; 32]);
        assert_eq!(largest.len(), 43);
        assert!(largest.starts_with('y'));
    }
}
