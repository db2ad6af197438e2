//! Listening sockets: binding, and handing an address to a successor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};

/// Probes of a connection that has been quiet for a minute: a dead one is closed after two minutes.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Binds a socket, once; every worker accepts from a duplicate of it.
///
/// # Errors
/// The address is in use, not local, or not permitted.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, false)
}

/// Binds the admin socket. A draining gateway keeps its socket, so that it still reports itself not
/// ready, and lets a successor bind the same address ([`share_with_successor`]).
///
/// # Errors
/// The address is used by another program, not local, or not permitted.
pub fn bind_admin(address: SocketAddr) -> io::Result<TcpListener> {
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

/// Prepares a listening socket that another process has bound.
///
/// # Errors
/// The operating system does not support the options.
pub fn adopt(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    SockRef::from(listener).set_tcp_keepalive(&TCP_KEEPALIVE)
}

/// Lets another process of this user bind the same address. Linux then gives new connections to the
/// newer socket; over IPv6 each socket gets a share.
///
/// # Errors
/// The operating system does not support the option.
pub fn share_with_successor(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).set_reuse_port(true)
}

/// Makes the kernel ignore new connection attempts, so that none is accepted and then reset when
/// the socket is closed. A client repeats its SYN after a second, and reaches the successor or is
/// refused. Handshakes that have begun are completed.
///
/// # Errors
/// The operating system has no such filter.
pub fn ignore_new_connections(listener: &TcpListener) -> io::Result<()> {
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
