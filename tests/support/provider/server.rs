//! The sockets of the provider: it listens, stops and listens again on the same port.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use super::State;
use super::reply::Transfer;
use crate::support::client::Wire;
use crate::support::upstream::read_request;

/// A listening socket, until it is stopped.
pub(super) struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    open: Arc<Mutex<HashMap<SocketAddr, TcpStream>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Server {
    pub(super) fn start(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        state: Arc<State>,
    ) -> Server {
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(HashMap::new()));
        let (is_stopped, connections) = (Arc::clone(&stopped), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                let Ok(peer) = stream.peer_addr() else {
                    continue;
                };
                connections.lock().insert(peer, stream.try_clone().unwrap());
                let (tls, state) = (tls.clone(), Arc::clone(&state));
                let connections = Arc::clone(&connections);
                std::thread::spawn(move || {
                    let own = stream.try_clone().unwrap();
                    let is_reset = serve(stream, tls, &state);
                    // A reset is sent once the last handle of the socket is closed.
                    connections.lock().remove(&peer);
                    if is_reset {
                        let _ = SockRef::from(&own).set_linger(Some(Duration::ZERO));
                    } else {
                        let _ = own.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        Server {
            address,
            stopped,
            open,
            thread,
        }
    }

    /// Closes the listening socket and every connection.
    pub(super) fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        self.thread.join().unwrap();
        for stream in self.open.lock().drain().map(|(_, stream)| stream) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Listens on a port that was in use a moment ago.
pub(super) fn bind(address: SocketAddr) -> TcpListener {
    crate::support::wait::eventually("the provider's port is free", || {
        TcpListener::bind(address).ok()
    })
}

/// Serves a connection to its end; whether that is a reset.
fn serve(socket: TcpStream, tls: Option<Arc<ServerConfig>>, state: &State) -> bool {
    let mut stream: Box<dyn Wire> = match tls {
        Some(config) => {
            let session = ServerConnection::new(config).unwrap();
            Box::new(StreamOwned::new(session, socket))
        }
        None => Box::new(socket),
    };
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer) {
        let reply = state.respond(seen);
        if !reply.send(&mut stream).is_ok_and(|goes_on| goes_on) {
            return reply.transfer == Transfer::Reset;
        }
    }
    false
}
