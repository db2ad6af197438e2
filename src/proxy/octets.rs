//! Which octets HTTP allows where.

/// What a byte may be part of; a table, because every byte of every head is looked up.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let one = byte as u8;
        if one.is_ascii_alphanumeric()
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
            )
        {
            classes[byte] |= TOKEN;
        }
        if matches!(one, b'\t' | 0x20..=0x7e | 0x80..) {
            classes[byte] |= FIELD;
        }
        byte += 1;
    }
    classes
};
const TOKEN: u8 = 1;
const FIELD: u8 = 2;

/// `tchar` of RFC 9110, section 5.6.2.
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(super) fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

/// Visible characters, space, tab and obs-text.
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
pub(super) fn is_field_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & FIELD != 0
}
