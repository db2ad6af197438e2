//! Lower-case hexadecimal digits of byte arrays, in loops that the compiler vectorizes.

/// Returns the digits, two for each byte.
pub fn encode<const BYTES: usize, const DIGITS: usize>(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES) };
    let mut digits = [0; DIGITS];
    let (pairs, _) = digits.as_chunks_mut();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [byte >> 4, byte & 0xf];
    }
    for digit in &mut digits {
        *digit += if *digit < 10 { b'0' } else { b'a' - 10 };
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_the_digits_of_the_library() {
        for byte in 0..=255 {
            for bytes in [[byte; 32], [0; 32].map(|zero: u8| zero.wrapping_add(byte))] {
                let digits: [u8; 64] = encode(&bytes);
                assert_eq!(digits, *hex::encode(bytes).as_bytes());
            }
            let digits: [u8; 6] = encode(&[0, byte, !byte]);
            assert_eq!(digits, *hex::encode([0, byte, !byte]).as_bytes());
        }
    }
}
