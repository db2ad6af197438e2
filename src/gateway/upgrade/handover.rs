//! The channel between a gateway and its successor: messages, and the sockets that go with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::gateway::sockets::HeldBy;
use crate::settings::BindAddress;

/// Version of the messages. Gateways of different versions do not hand over to each other.
const VERSION: u32 = 2;
/// Maximum size of a message, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// Maximum number of sockets; the kernel passes up to 253 with one message.
const MAX_SOCKETS: usize = 250;

/// One end of a connection between a gateway and its successor, which carries whole messages.
pub(super) struct Channel(OwnedFd);

/// A message, in the order in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// From the successor: it is a gateway that takes sockets.
    Request,
    /// From the predecessor: the sockets that come with the message.
    Offer { sockets: Vec<OfferedSocket> },
    /// From the successor: it serves. The indices are those of the sockets that it has taken.
    Serving { taken: Vec<usize> },
    /// From the successor: it does not start.
    Failed { errors: Vec<String> },
    /// From the predecessor: it no longer accepts connections.
    Released,
}

/// A socket that the predecessor offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::gateway) enum OfferedSocket {
    /// A listener, by its configured address.
    Listener { bind: BindAddress, held_by: HeldBy },
    /// The control socket.
    Control { path: PathBuf },
}

#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    version: u32,
    message: M,
}

/// Why no message was sent or received.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    #[error("the other process has ended, or closed the connection")]
    Closed,
    #[error("the other process sent nothing in time")]
    TimedOut,
    #[error("the other process speaks version {0} of the handover, and this one version {VERSION}")]
    Version(u32),
    #[error("a message of the other process is malformed")]
    Malformed,
    #[error("there are more than {MAX_SOCKETS} listening sockets")]
    TooManySockets,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for HandoverError {
    fn from(errno: Errno) -> HandoverError {
        match errno {
            Errno::AGAIN => HandoverError::TimedOut,
            Errno::PIPE | Errno::CONNRESET => HandoverError::Closed,
            other => HandoverError::Io(other.into()),
        }
    }
}

impl Channel {
    /// Creates both ends.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (own, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(own), other))
    }

    /// Takes an end that was inherited.
    pub(super) fn from_descriptor(descriptor: OwnedFd) -> Channel {
        Channel(descriptor)
    }

    pub(super) fn try_clone(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    /// Sends a message with these descriptors. Does not wait for the other side to read.
    pub(super) fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        if descriptors.len() > MAX_SOCKETS {
            return Err(HandoverError::TooManySockets);
        }
        let version = VERSION;
        let bytes = serde_json::to_vec(&Envelope { version, message });
        let bytes = bytes.map_err(|_| HandoverError::Malformed)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(HandoverError::Malformed);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags)?;
        Ok(())
    }

    /// Receives a message and the descriptors that came with it.
    pub(super) fn receive(
        &self,
        limit: Duration,
    ) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(limit))?;
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            // A receive with a time limit is not restarted after a signal.
            rustix::io::retry_on_intr(|| {
                let buffer = &mut [IoSliceMut::new(&mut bytes)];
                rustix::net::recvmsg(&self.0, buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
            })
        };
        let received = match receive() {
            // Reported once, before the last messages of a process that has ended.
            Err(Errno::CONNRESET) => receive(),
            received => received,
        }?;
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = descriptors.flatten().collect();
        if received.bytes == 0 {
            return Err(HandoverError::Closed);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(HandoverError::Malformed);
        }
        let bytes = bytes.get(..received.bytes).unwrap_or_default();
        Ok((parse(bytes)?, descriptors))
    }

    /// Ends the connection for all clones: the other process receives no more messages.
    pub(super) fn close(&self) {
        // Fails if the other process has closed it.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn parse(bytes: &[u8]) -> Result<Message, HandoverError> {
    // Only the version is the same in all versions.
    let envelope: Envelope<serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|_| HandoverError::Malformed)?;
    if envelope.version != VERSION {
        return Err(HandoverError::Version(envelope.version));
    }
    serde_json::from_value(envelope.message).map_err(|_| HandoverError::Malformed)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn channels() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::from_descriptor(other))
    }

    fn send_bytes(channel: &Channel, bytes: &[u8]) {
        rustix::net::send(channel, bytes, SendFlags::empty()).unwrap();
    }

    #[test]
    fn sockets_arrive_with_their_message() {
        let (one, other) = channels();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = listener.local_addr().unwrap();
        let held_by = HeldBy::Gateway;
        let offer = Message::Offer {
            sockets: vec![
                OfferedSocket::Listener {
                    bind: BindAddress::Tcp(bind),
                    held_by,
                },
                OfferedSocket::Listener {
                    bind: BindAddress::Unix("/run/authz.sock".into()),
                    held_by,
                },
            ],
        };
        one.send(&offer, &[listener.as_fd(), listener.as_fd()])
            .unwrap();
        one.send(&Message::Released, &[]).unwrap();
        drop(listener);
        let (received, mut descriptors) = other.receive(LIMIT).unwrap();
        assert_eq!((received, descriptors.len()), (offer, 2));
        let listener = TcpListener::from(descriptors.remove(0));
        assert_eq!(listener.local_addr().unwrap(), bind);
        let (received, descriptors) = other.receive(LIMIT).unwrap();
        assert_eq!((received, descriptors.len()), (Message::Released, 0));
    }

    #[test]
    fn last_message_of_a_process_that_read_nothing_is_received() {
        let (one, other) = channels();
        one.send(&Message::Released, &[]).unwrap();
        let failed = Message::Failed {
            errors: vec!["reason".to_owned()],
        };
        other.send(&failed, &[]).unwrap();
        drop(other);
        assert_eq!(one.receive(LIMIT).unwrap().0, failed);
    }

    #[test]
    fn hostile_messages_are_errors() {
        let deep = "[".repeat(10_000);
        for (bytes, expected) in [
            (&b"{}"[..], "malformed"),
            (b"\xff\x00", "malformed"),
            (deep.as_bytes(), "malformed"),
            (br#"{"version":2,"message":"other"}"#, "malformed"),
            (
                br#"{"version":2,"message":{"serving":{"taken":[-1]}}}"#,
                "malformed",
            ),
            (br#"{"version":3,"message":{"new":true}}"#, "version 3"),
        ] {
            let (one, other) = channels();
            send_bytes(&one, bytes);
            let error = other.receive(LIMIT).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let (one, other) = channels();
        send_bytes(&one, &vec![b' '; MAX_MESSAGE + 1]);
        assert!(matches!(
            other.receive(LIMIT),
            Err(HandoverError::Malformed)
        ));
    }

    #[test]
    fn silence_differs_from_the_end_of_the_peer() {
        let (one, other) = channels();
        let silent = other.receive(Duration::from_millis(10));
        assert!(matches!(silent, Err(HandoverError::TimedOut)));
        drop(one);
        assert!(matches!(other.receive(LIMIT), Err(HandoverError::Closed)));
        let sent = other.send(&Message::Released, &[]);
        assert!(matches!(sent, Err(HandoverError::Closed)));
    }
}
