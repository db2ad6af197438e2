//! A blocking WebSocket client.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

use super::client::connect_socket;

pub struct WebSocketClient(WebSocket<TcpStream>);

impl WebSocketClient {
    /// Opens one, or returns the status of the refusal.
    pub fn open(
        to: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<WebSocketClient, u16> {
        let mut request = format!("ws://{to}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match client(request, connect_socket(to).unwrap()) {
            Ok((socket, _)) => Ok(WebSocketClient(socket)),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Sends a text and returns what comes back.
    pub fn echo(&mut self, text: &str) -> String {
        self.0.send(Message::text(text)).unwrap();
        self.0.read().unwrap().into_text().unwrap().to_string()
    }

    /// Waits for the peer's close frame and returns its code.
    pub fn close_code(&mut self, deadline: Duration) -> Option<u16> {
        self.0.get_ref().set_read_timeout(Some(deadline)).unwrap();
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.map(|f| u16::from(f.code)),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

/// What a revoked session's sockets are closed with.
pub const POLICY_VIOLATION: u16 = 1008;
/// What a drain closes sockets with.
pub const GOING_AWAY: u16 = 1001;
