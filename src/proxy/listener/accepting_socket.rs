//! A listening socket on the runtime of a worker.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::ListeningSocket;

/// The address of a peer that has none, because it is on this machine.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A listening socket on the runtime of a worker.
#[derive(Debug)]
pub enum AcceptingSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection before its handshakes.
#[derive(Debug)]
pub(super) enum AcceptedStream {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl AcceptedStream {
    /// The address of the peer.
    pub(super) fn ip(&self) -> IpAddr {
        match self {
            AcceptedStream::Tcp(_, ip) => *ip,
            AcceptedStream::Unix(_) => LOCAL,
        }
    }
}

impl AcceptingSocket {
    /// Registers a socket with the current runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(socket: ListeningSocket) -> io::Result<AcceptingSocket> {
        match socket {
            ListeningSocket::Tcp(socket) => TcpListener::from_std(socket).map(AcceptingSocket::Tcp),
            ListeningSocket::Unix(socket) => {
                UnixListener::from_std(socket).map(AcceptingSocket::Unix)
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<AcceptedStream> {
        match self {
            AcceptingSocket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(AcceptedStream::Tcp(stream, address.ip().to_canonical()))
            }
            AcceptingSocket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(AcceptedStream::Unix(stream))
            }
        }
    }

    /// Accepts the connections in the kernel's queue, and closes the socket.
    pub(super) fn take_backlog(self) -> Vec<AcceptedStream> {
        match self {
            AcceptingSocket::Tcp(listener) => take_tcp_backlog(listener),
            AcceptingSocket::Unix(listener) => take_unix_backlog(listener),
        }
    }
}

fn take_tcp_backlog(listener: TcpListener) -> Vec<AcceptedStream> {
    let mut streams = Vec::new();
    let Ok(listener) = listener.into_std() else {
        return streams;
    };
    while let Ok((stream, address)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            streams.push(AcceptedStream::Tcp(stream, address.ip().to_canonical()));
        }
    }
    streams
}

fn take_unix_backlog(listener: UnixListener) -> Vec<AcceptedStream> {
    let mut streams = Vec::new();
    let Ok(listener) = listener.into_std() else {
        return streams;
    };
    while let Ok((stream, _)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = UnixStream::from_std(stream)
        {
            streams.push(AcceptedStream::Unix(stream));
        }
    }
    streams
}
