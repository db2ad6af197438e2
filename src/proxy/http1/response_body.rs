//! Body of an upstream's response.

use crate::pipeline::client_response::framing::ResponseFraming;
use crate::proxy::connection::chunked::{Chunks, Malformed};
use crate::proxy::open_streams::frame_boundary::FrameBoundary;

/// The part of a body that has not been read.
pub(super) enum ResponseBody {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    /// Whatever an upgraded upstream sends.
    Tunnel(FrameBoundary),
}

impl ResponseBody {
    /// `None`: there is no body.
    pub(super) fn new(framing: ResponseFraming) -> Option<ResponseBody> {
        match framing {
            ResponseFraming::None | ResponseFraming::Length(0) => None,
            ResponseFraming::Length(length) => Some(ResponseBody::Length(length)),
            ResponseFraming::Chunked => Some(ResponseBody::Chunked(Chunks::default())),
            ResponseFraming::UntilClose => Some(ResponseBody::UntilClose),
        }
    }

    /// Passes the data in further bytes on. Returns how many of the bytes belong to the body, and
    /// whether it has ended.
    ///
    /// # Errors
    /// The framing is malformed.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<(usize, bool), Malformed> {
        match self {
            ResponseBody::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let taken = most.min(bytes.len());
                data(bytes.get(..taken).unwrap_or_default());
                *left -= taken as u64;
                Ok((taken, *left == 0))
            }
            ResponseBody::Chunked(chunks) => {
                let taken = chunks.decode(bytes, data)?;
                Ok((taken, chunks.is_done()))
            }
            ResponseBody::UntilClose => {
                data(bytes);
                Ok((bytes.len(), false))
            }
            ResponseBody::Tunnel(frames) => {
                frames.pass(bytes);
                data(bytes);
                Ok((bytes.len(), false))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn body_ends_where_its_framing_says_in_pieces_of_any_size() {
        for (framing, sent, data, more) in [
            (
                ResponseFraming::Length(5),
                "helloHTTP/1.1",
                "hello",
                Some(8),
            ),
            (ResponseFraming::Length(5), "hel", "hel", None),
            (
                ResponseFraming::Chunked,
                "3;a\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\nHTTP/1.1",
                "hello",
                Some(8),
            ),
            (ResponseFraming::Chunked, "3\r\nhel\r\n", "hel", None),
            (ResponseFraming::UntilClose, "hello", "hello", None),
        ] {
            for length in [1, 2, sent.len()] {
                let mut body = ResponseBody::new(framing).unwrap();
                let (mut read, mut taken, mut is_done) = (Vec::new(), 0, false);
                for piece in sent.as_bytes().chunks(length) {
                    if is_done {
                        break;
                    }
                    let outcome = body.take(piece, |data| read.extend_from_slice(data));
                    let (bytes, ended) = outcome.unwrap();
                    taken += bytes;
                    is_done = ended;
                }
                assert_eq!(read, data.as_bytes(), "{framing:?} {sent:?}");
                let left = is_done.then_some(sent.len() - taken);
                assert_eq!(left, more, "{framing:?} {sent:?}");
            }
        }
        assert!(ResponseBody::new(ResponseFraming::None).is_none());
        assert!(ResponseBody::new(ResponseFraming::Length(0)).is_none());
        let mut malformed = ResponseBody::new(ResponseFraming::Chunked).unwrap();
        assert_eq!(malformed.take(b"x\r\n", |_| ()), Err(Malformed));
    }
}
