//! Picture types, detected from the content instead of the declared type.

/// Returns the media type of a complete PNG, JPEG, GIF or WebP picture.
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
    let found = [
        ("image/png", is_png as fn(&[u8]) -> bool),
        ("image/jpeg", is_jpeg),
        ("image/gif", is_gif),
        ("image/webp", is_webp),
    ];
    let (media_type, _) = found.into_iter().find(|(_, is)| is(bytes))?;
    Some(media_type)
}

/// Checks the signature, a header chunk and the end chunk (PNG, third edition, sections 5.2 and
/// 11.2).
fn is_png(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
    bytes.starts_with(BEGIN) && bytes.ends_with(END)
}

/// Checks start and end of image, and a marker after the start (ITU-T T.81, annex B).
fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xd8\xff") && bytes.ends_with(b"\xff\xd9")
}

/// Checks header and trailer (GIF89a, sections 17 and 27).
fn is_gif(bytes: &[u8]) -> bool {
    let begins = bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a");
    begins && bytes.len() > 13 && bytes.ends_with(b";")
}

/// Checks for a WebP RIFF container of the declared length (RFC 9649, section 2.3).
fn is_webp(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_at_checked(8) else {
        return false;
    };
    let Some(length) = head.strip_prefix(b"RIFF") else {
        return false;
    };
    let length = length
        .iter()
        .rev()
        .fold(0, |sum, byte| sum * 256 + usize::from(*byte));
    let kinds: [&[u8]; 3] = [b"WEBPVP8 ", b"WEBPVP8L", b"WEBPVP8X"];
    length == rest.len() && kinds.iter().any(|kind| rest.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_is_detected_from_bytes() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR....\0\0\0\0IEND\xaeB`\x82";
        let jpeg = b"\xff\xd8\xff\xe0....\xff\xd9";
        let gif = b"GIF89a\x01\0\x01\0\0\0\0....;";
        let webp = b"RIFF\x0c\0\0\0WEBPVP8L....";
        let good: [(&[u8], &str); 4] = [
            (png, "image/png"),
            (jpeg, "image/jpeg"),
            (gif, "image/gif"),
            (webp, "image/webp"),
        ];
        for (bytes, expected) in good {
            assert_eq!(media_type(bytes), Some(expected));
            let cut = bytes.len() - 1;
            assert_eq!(media_type(bytes.get(..cut).unwrap_or_default()), None);
        }
    }

    #[test]
    fn other_content_has_no_media_type() {
        let bad: [&[u8]; 9] = [
            b"",
            b"GIF89a",
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            b"<script>alert(1)</script>",
            b"BM....",
            b"\xff\xd8\xff",
            b"RIFF\xff\xff\xff\xffWEBPVP8L",
            b"RIFF\x04\0\0\0WAVE",
            b"\x89PNG\r\n\x1a\n",
        ];
        for bytes in bad {
            assert_eq!(media_type(bytes), None, "{bytes:?}");
        }
    }
}
