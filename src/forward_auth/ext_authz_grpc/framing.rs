//! The one message of a unary call, in the body of a request or of a response (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Length of what stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Reads a body that is exactly one message. `None`: it is not, or the message is compressed or
/// malformed.
pub(super) fn read_message<M: Message + Default>(body: &[u8]) -> Option<M> {
    let (prefix, message) = body.split_first_chunk::<PREFIX>()?;
    let [0, a, b, c, d] = *prefix else {
        return None;
    };
    let is_whole = u32::from_be_bytes([a, b, c, d]) as usize == message.len();
    is_whole.then(|| M::decode(message).ok()).flatten()
}

/// The body with a message.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    // Responses are as small as the heads that they describe.
    body.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows as needed, so encoding never fails.
    let _ = message.encode(&mut body);
    body.freeze()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::forward_auth::ext_authz_grpc::messages::{AttributeContext, CheckRequest};

    fn request() -> CheckRequest {
        CheckRequest {
            attributes: Some(AttributeContext::default()),
        }
    }

    #[test]
    fn message_is_read_as_it_was_written() {
        let body = frame(&request());
        assert_eq!(read_message::<CheckRequest>(&body), Some(request()));
        let empty = frame(&CheckRequest::default());
        assert_eq!(empty, [0; PREFIX][..]);
        assert_eq!(read_message(&empty), Some(CheckRequest::default()));
    }

    #[test]
    fn body_is_exactly_one_plain_message() {
        let body = frame(&request()).to_vec();
        for length in 0..body.len() {
            assert_eq!(
                read_message::<CheckRequest>(&body[..length]),
                None,
                "{length}"
            );
        }
        let twice = [&body[..], &body[..]].concat();
        let longer = [&body[..], &[0]].concat();
        let compressed = [&[1], &body[1..]].concat();
        let malformed = [&body[..PREFIX], &[0xff; 2]].concat();
        assert_eq!(body.len(), malformed.len());
        for body in [twice, longer, compressed, malformed] {
            assert_eq!(read_message::<CheckRequest>(&body), None, "{body:?}");
        }
        assert!(read_message::<CheckRequest>(&body).is_some());
        assert!(u8::try_from(body.len()).unwrap() > 5);
    }
}
