//! Body of a request that is read by the gateway itself, for a call of its own endpoints or to be
//! drained.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::client::Client;
use super::timer_wheel::Ticks;
use crate::proxy::connection::chunked::Chunks;
use crate::proxy::connection::head::BodyFraming;

/// The part of a body that has not been read.
#[derive(Debug)]
pub(super) struct RequestBody {
    rest: Rest,
    /// Bytes of its data so far.
    pub received: u64,
}

#[derive(Debug)]
enum Rest {
    Nothing,
    Length(u64),
    Chunked(Chunks),
}

/// Why a body cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The client has closed the connection.
    Gone,
    Late,
    Malformed,
    TooLarge,
}

impl RequestBody {
    pub(super) fn new(framing: BodyFraming) -> RequestBody {
        let rest = match framing {
            BodyFraming::None => Rest::Nothing,
            BodyFraming::Length(length) => Rest::Length(length),
            BodyFraming::Chunked => Rest::Chunked(Chunks::default()),
        };
        RequestBody { rest, received: 0 }
    }

    /// Whether it has been read to its end.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Reads the body to its end, at most `most` bytes of data within `time`, and passes the data on.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub(super) async fn read(
        &mut self,
        client: &mut Client,
        most: u64,
        time: Duration,
        mut data: impl FnMut(&[u8]),
    ) -> Result<(), BodyError> {
        client.deadline.arm(Ticks::of(time));
        let read = poll_fn(|cx| self.poll_read(cx, client, most, &mut data)).await;
        client.deadline.disarm();
        read
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        most: u64,
        data: &mut impl FnMut(&[u8]),
    ) -> Poll<Result<(), BodyError>> {
        loop {
            self.take(client, data)?;
            if self.received > most {
                return Poll::Ready(Err(BodyError::TooLarge));
            }
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            match client.poll_read_more(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(BodyError::Gone)),
                Poll::Pending => {
                    ready!(client.deadline.poll_passed(cx));
                    return Poll::Ready(Err(BodyError::Late));
                }
            }
        }
    }

    /// Takes what has arrived of it.
    pub(super) fn take(
        &mut self,
        client: &mut Client,
        data: &mut impl FnMut(&[u8]),
    ) -> Result<(), BodyError> {
        if client.unread.is_empty() {
            return Ok(());
        }
        let received = &mut self.received;
        let mut count = |part: &[u8]| {
            *received += part.len() as u64;
            data(part);
        };
        let (taken, is_done) = match &mut self.rest {
            Rest::Nothing => (0, true),
            Rest::Length(left) => {
                let taken = client
                    .unread
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                count(client.unread.get(..taken).unwrap_or_default());
                *left -= taken as u64;
                (taken, *left == 0)
            }
            Rest::Chunked(chunks) => {
                let taken = chunks.decode(&client.unread, count);
                let taken = taken.map_err(|_| BodyError::Malformed)?;
                (taken, chunks.is_done())
            }
        };
        client.consume(taken);
        if is_done {
            self.rest = Rest::Nothing;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::AsyncWriteExt;

    use super::super::client::tests::connected;
    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn body_is_read_to_its_end_and_no_further() {
        use BodyFraming::*;
        for (framing, sent, data, rest) in [
            (None, "next", "", "next"),
            (Length(4), "bodynext", "body", "next"),
            (
                Chunked,
                "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\nnext",
                "body",
                "next",
            ),
            (Chunked, "0\r\nA: b\r\n\r\n", "", ""),
        ] {
            let (mut client, mut socket) = connected().await;
            // In two parts: the second arrives while the body is read.
            let (first, second) = sent.split_at(sent.len() / 2);
            client.unread.extend_from_slice(first.as_bytes());
            socket.write_all(second.as_bytes()).await.unwrap();
            let (mut body, mut read) = (RequestBody::new(framing), Vec::new());
            let outcome = body.read(&mut client, 4, TIME, |part| read.extend_from_slice(part));
            assert_eq!(outcome.await, Ok(()), "{sent:?}");
            assert_eq!((read, body.received), (data.into(), data.len() as u64));
            while client.unread.len() < rest.len() {
                poll_fn(|cx| client.poll_read_more(cx)).await.unwrap();
            }
            assert_eq!(client.unread, rest.as_bytes());
        }
    }

    #[tokio::test]
    async fn incomplete_bodies_are_errors() {
        use BodyError::*;
        use BodyFraming::*;
        for (framing, sent, error) in [
            (Length(5), "body", Gone),
            (Length(5), "12345", TooLarge),
            (Chunked, "5\r\n12345\r\n", TooLarge),
            (Chunked, "4\r\nbody", Gone),
            (Chunked, "4\r\nbodyX", Malformed),
        ] {
            let (mut client, mut socket) = connected().await;
            socket.write_all(sent.as_bytes()).await.unwrap();
            drop(socket);
            let mut body = RequestBody::new(framing);
            let outcome = body.read(&mut client, 4, TIME, |_| ()).await;
            assert_eq!(outcome, Err(error), "{sent:?}");
        }
    }
}
