//! Body of an upstream's response.

use crate::proxy::connection::chunked::{Chunks, Malformed};
use crate::proxy::connection::head::response::ResponseFraming;
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
