//! Listening sockets: binding, and handing an address to a successor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};

use super::unix_socket;
use crate::settings::BindAddress;

/// Probes of a connection that has been quiet for a minute: a dead one is closed after two minutes.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// A listening socket.
#[derive(Debug)]
pub enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListeningSocket {
    /// The socket that a descriptor is, which another process has bound to this address.
    pub fn of(address: &BindAddress, descriptor: OwnedFd) -> ListeningSocket {
        match address {
            BindAddress::Tcp(_) => ListeningSocket::Tcp(descriptor.into()),
            BindAddress::Unix(_) => ListeningSocket::Unix(descriptor.into()),
        }
    }

    pub fn tcp(&self) -> Option<&TcpListener> {
        match self {
            ListeningSocket::Tcp(listener) => Some(listener),
            ListeningSocket::Unix(_) => None,
        }
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self) -> io::Result<BindAddress> {
        match self {
            ListeningSocket::Tcp(listener) => listener.local_addr().map(BindAddress::Tcp),
            ListeningSocket::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address
                    .as_pathname()
                    .ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(BindAddress::Unix(path.to_owned()))
            }
        }
    }

    /// Returns a duplicate of the socket.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone(&self) -> io::Result<ListeningSocket> {
        match self {
            ListeningSocket::Tcp(listener) => listener.try_clone().map(ListeningSocket::Tcp),
            ListeningSocket::Unix(listener) => listener.try_clone().map(ListeningSocket::Unix),
        }
    }

    /// Prepares a socket that another process has bound.
    ///
    /// # Errors
    /// The operating system does not support the options.
    pub fn adopt(&self) -> io::Result<()> {
        match self {
            ListeningSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                SockRef::from(listener).set_tcp_keepalive(&TCP_KEEPALIVE)
            }
            ListeningSocket::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Makes new connection attempts fail or wait, so that none is accepted and then reset when the
    /// socket is closed.
    ///
    /// # Errors
    /// The operating system cannot.
    pub fn ignore_new_connections(&self) -> io::Result<()> {
        match self {
            ListeningSocket::Tcp(listener) => ignore_new_handshakes(listener),
            ListeningSocket::Unix(listener) => unix_socket::remove(listener),
        }
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListeningSocket::Tcp(listener) => listener.as_fd(),
            ListeningSocket::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Binds a socket, once; every worker accepts from a duplicate of it.
///
/// # Errors
/// The address is in use, not local, or not permitted.
pub fn bind(address: &BindAddress) -> io::Result<ListeningSocket> {
    match address {
        BindAddress::Tcp(address) => listen(*address, false).map(ListeningSocket::Tcp),
        BindAddress::Unix(path) => unix_socket::bind(path).map(ListeningSocket::Unix),
    }
}

/// Binds the admin socket. A draining gateway keeps its socket, so that it still reports itself not
/// ready, and lets a successor bind the same address ([`share_with_successor`]).
///
/// # Errors
/// The address is used by another program, not local, or not permitted.
pub fn bind_admin(address: &BindAddress) -> io::Result<ListeningSocket> {
    let BindAddress::Tcp(address) = address else {
        return bind(address);
    };
    listen_or_share(*address).map(ListeningSocket::Tcp)
}

fn listen_or_share(address: SocketAddr) -> io::Result<TcpListener> {
    match listen(address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let listener = listen(address, true).map_err(|_| error)?;
            // The address must not be shared before this gateway drains.
            SockRef::from(&listener).set_reuse_port(false)?;
            Ok(listener)
        }
        bound => bound,
    }
}

/// Lets another process of this user bind the same address. Linux then gives new connections to the
/// newer socket; over IPv6 each socket gets a share.
///
/// # Errors
/// The operating system does not support the option.
pub fn share_with_successor(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).set_reuse_port(true)
}

/// Makes the kernel ignore new connection attempts. A client repeats its SYN after a second, and
/// reaches the successor or is refused. Handshakes that have begun are completed.
fn ignore_new_handshakes(listener: &TcpListener) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// Offset of the flags in the TCP header (RFC 9293, section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let drop_connection_attempts = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_ANY_BIT, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&drop_connection_attempts)
}

fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Accepted sockets inherit it.
    socket.set_tcp_keepalive(&TCP_KEEPALIVE)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
