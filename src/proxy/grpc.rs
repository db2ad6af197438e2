//! gRPC over HTTP/2: recognizes calls and follows the messages of a stream.

use http::Method;

use crate::pipeline::local_response::GRPC;

/// Length of the prefix of a message: a flag and the message's length.
const PREFIX: usize = 5;

/// Whether a request is a gRPC call. gRPC-Web is another protocol.
pub(super) fn is_call(method: &Method, content_type: Option<&[u8]>) -> bool {
    method == Method::POST && content_type.is_some_and(is_media_type)
}

fn is_media_type(content: &[u8]) -> bool {
    let (content, length) = (content.trim_ascii(), GRPC.len());
    let begins = content
        .get(..length)
        .is_some_and(|start| start.eq_ignore_ascii_case(GRPC.as_bytes()));
    begins && matches!(content.get(length), None | Some(b'+' | b';' | b' '))
}

/// Follows the messages of a request body, to check the length of each.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes of the message that have not arrived yet.
    left: u64,
}

/// A message that is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageTooLong;

impl Messages {
    /// Parses further bytes.
    ///
    /// # Errors
    /// One of the messages is longer than `most`.
    pub(super) fn pass(&mut self, mut bytes: &[u8], most: u64) -> Result<(), MessageTooLong> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len() as u64);
                self.left -= skipped;
                bytes = bytes.get(skipped as usize..).unwrap_or_default();
                continue;
            }
            let free = self.prefix.get_mut(self.filled..).unwrap_or_default();
            let taken = free.len().min(bytes.len());
            let (part, rest) = bytes.split_at(taken);
            for (slot, byte) in free.iter_mut().zip(part) {
                *slot = *byte;
            }
            self.filled += taken;
            bytes = rest;
            if self.filled == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.filled = 0;
                if self.left > most {
                    return Err(MessageTooLong);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn call_is_recognized_by_its_media_type() {
        for (method, content, call) in [
            ("POST", "application/grpc", true),
            ("POST", "Application/GRPC+proto", true),
            ("POST", "application/grpc;charset=utf-8", true),
            // On HTTP/2 a value may begin with whitespace.
            ("POST", " application/grpc", true),
            ("POST", "application/grpc-web", false),
            ("POST", "application/grpc-web+proto", false),
            ("POST", "application/json", false),
            ("GET", "application/grpc", false),
        ] {
            let method = method.parse().unwrap();
            let content_type = Some(content.as_bytes());
            assert_eq!(is_call(&method, content_type), call, "{method} {content}");
        }
    }

    #[test]
    fn message_limit_holds_for_any_split() {
        let mut stream = Vec::new();
        for length in [3_u32, 0, 10, 10] {
            stream.push(0);
            stream.extend_from_slice(&length.to_be_bytes());
            stream.extend(std::iter::repeat_n(b'x', length as usize));
        }
        for step in 1..stream.len() {
            let mut messages = Messages::default();
            for part in stream.chunks(step) {
                assert_eq!(messages.pass(part, 10), Ok(()), "{step}");
            }
            let mut messages = Messages::default();
            let passed: Vec<_> = stream.chunks(step).map(|it| messages.pass(it, 9)).collect();
            assert!(passed.contains(&Err(MessageTooLong)), "{step}");
        }
        let mut messages = Messages::default();
        assert_eq!(messages.pass(&stream[..8], 3), Ok(()));
        assert_eq!(
            messages.pass(&[0, 0xff, 0xff, 0xff, 0xff], 3),
            Err(MessageTooLong)
        );
    }
}
