//! A backend with one user, which verifies the password itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

/// Answers every request as a login: 200 with an id for the one username and password, else 401.
pub struct Backend {
    pub address: SocketAddr,
}

impl Backend {
    pub fn start(username: &'static str, password: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away is no matter.
                let _ = respond(stream, username, password);
            }
        });
        Backend { address }
    }
}

fn respond(stream: TcpStream, username: &str, password: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let requested: Value = serde_json::from_slice(&body)?;
    let right = requested == json!({ "username": username, "password": password });
    let (status, body) = if right {
        ("200 OK", json!({ "id": 7 }).to_string())
    } else {
        ("401 Unauthorized", json!({}).to_string())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
