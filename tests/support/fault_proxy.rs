//! A TCP proxy that can be cut, slowed and restored.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::servers::until;

pub struct FaultProxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    delay: AtomicU64,
    /// What is not let through: nothing where it is empty.
    trigger: Mutex<Vec<u8>>,
    /// They are let through, and nothing after them.
    forwards_trigger: AtomicBool,
    refusing: Mutex<bool>,
    accepting: Condvar,
    held: Mutex<bool>,
    released: Condvar,
    open: Mutex<Vec<TcpStream>>,
    taken: AtomicUsize,
}

impl FaultProxy {
    pub fn before(target: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut listener = listener;
            loop {
                let Ok((client, _)) = listener.accept() else {
                    continue;
                };
                if *shared.refusing.lock() {
                    drop((client, listener));
                    listener = shared.bind_again(address);
                    continue;
                }
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || pump(from, to, &shared));
                }
                shared.taken.fetch_add(1, Ordering::SeqCst);
                shared.open.lock().extend([client, server]);
            }
        });
        FaultProxy { address, state }
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.state.taken.load(Ordering::SeqCst)
    }

    /// Breaks every connection and takes no new ones.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Breaks every connection, and refuses new ones as a port on which nothing listens.
    pub fn refuse(&self) {
        *self.state.refusing.lock() = true;
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        until("connections are refused", || {
            TcpStream::connect(self.address).is_err()
        });
        self.state.break_all();
    }

    /// Breaks every connection once these bytes have been let through, should they come in one piece.
    pub fn cut_after(&self, bytes: &[u8]) {
        self.state.forwards_trigger.store(true, Ordering::SeqCst);
        *self.state.trigger.lock() = bytes.to_vec();
    }

    /// Does so instead of letting these bytes through, should they come in one piece.
    pub fn cut_before(&self, bytes: &[u8]) {
        *self.state.trigger.lock() = bytes.to_vec();
    }

    /// Holds all data back without an error, like a network partition: sent data arrives after the
    /// proxy is restored.
    pub fn hold(&self) {
        *self.state.held.lock() = true;
    }

    /// Takes connections again, without delay, and lets go of what was held.
    pub fn restore(&self) {
        *self.state.held.lock() = false;
        self.state.released.notify_all();
        self.state.delay.store(0, Ordering::SeqCst);
        self.state.trigger.lock().clear();
        self.state.forwards_trigger.store(false, Ordering::SeqCst);
        self.state.cut.store(false, Ordering::SeqCst);
        *self.state.refusing.lock() = false;
        self.state.accepting.notify_all();
    }

    /// Delays every piece of data by this time.
    pub fn delay(&self, delay: Duration) {
        self.state
            .delay
            .store(delay.as_millis() as u64, Ordering::SeqCst);
    }
}

impl State {
    /// Listens on the address again, as soon as connections are to be taken.
    fn bind_again(&self, address: SocketAddr) -> TcpListener {
        self.accepting
            .wait_while(&mut self.refusing.lock(), |refusing| *refusing);
        loop {
            if let Ok(listener) = TcpListener::bind(address) {
                return listener;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.break_all();
    }

    fn break_all(&self) {
        for stream in self.open.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn wait_until_released(&self) {
        self.released
            .wait_while(&mut self.held.lock(), |held| *held);
    }

    fn is_triggered(&self, piece: &[u8]) -> bool {
        let wire = self.trigger.lock();
        !wire.is_empty() && piece.windows(wire.len()).any(|part| part == *wire)
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let delay = state.delay.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(delay));
        state.wait_until_released();
        let trips = state.is_triggered(&buffer[..count]);
        let after = state.forwards_trigger.load(Ordering::SeqCst);
        if trips && !after {
            state.cut();
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        if trips && after {
            // What the other side says to it is lost.
            let _ = from.shutdown(Shutdown::Both);
            state.cut();
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
