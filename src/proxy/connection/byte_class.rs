//! Octets that HTTP allows in names and values.

/// The bytes of a token. A table, because every byte of every name is looked up.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let one = byte as u8;
        table[byte] = one.is_ascii_alphanumeric()
            || matches!(
                one,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// `tchar` of RFC 9110, section 5.6.2.
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Visible characters, space, tab and obs-text (RFC 9110, section 5.5).
pub(super) fn is_field_byte(byte: u8) -> bool {
    (byte >= 0x20) & (byte != 0x7f) | (byte == b'\t')
}

/// Whether all bytes are field bytes. Adding up bytes without an early return lets the compiler
/// vectorize the comparison.
pub(super) fn are_field_bytes(bytes: &[u8]) -> bool {
    let bad = |bad, byte: &u8| bad | u8::from(!is_field_byte(*byte));
    bytes.iter().fold(0, bad) == 0
}
