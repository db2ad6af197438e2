//! An upstream that handles its connections as a test directs.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Serves every connection by a function, each on a thread of its own.
pub fn serve_connections(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

/// Reads a request without a body; `false` when the connection ended.
pub fn read_request(stream: &mut TcpStream) -> bool {
    read_head(stream).is_some()
}

/// Reads the head of a request; `None`: the connection ended.
pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}
