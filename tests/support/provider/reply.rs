//! Responses of the provider, right and wrong, and how they go over the wire.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Wire;

/// A response. Its `Content-Length` is added when it is sent.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Before the first byte.
    pub delay: Duration,
    pub transfer: Transfer,
}

/// How a response is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Transfer {
    Complete,
    /// The body again and again, in chunks, for as long as the client reads.
    Endless,
    /// A byte of the body each time.
    Dripping(Duration),
    /// Half of the body, then the end of the connection.
    CutOff,
    /// A reset of the connection instead.
    Reset,
    /// Nothing, for as long as the client waits.
    Silent,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Reply {
        let mut reply = Reply::text(status, "application/json", &body.to_string());
        reply.set_header("Cache-Control", "no-store");
        reply
    }

    pub fn text(status: u16, media_type: &str, body: &str) -> Reply {
        Reply {
            status,
            headers: vec![("Content-Type".to_owned(), media_type.to_owned())],
            body: body.as_bytes().to_vec(),
            delay: Duration::ZERO,
            transfer: Transfer::Complete,
        }
    }

    pub fn redirect(target: &str) -> Reply {
        let mut reply = Reply::text(303, "text/plain", "");
        reply.set_header("Location", target);
        reply
    }

    pub fn set_header(&mut self, name: &str, value: &str) {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Replaces status and body by an error of OAuth 2.0.
    pub fn refuse(&mut self, status: u16, code: &str) {
        *self = Reply::json(status, &serde_json::json!({ "error": code }));
    }

    /// Sets a member of the body.
    pub fn set(&mut self, member: &str, value: Value) {
        self.edit(|body| body[member] = value);
    }

    /// Removes a member of the body.
    pub fn remove(&mut self, member: &str) {
        self.edit(|body| drop(body.as_object_mut().unwrap().remove(member)));
    }

    /// Gives a member a second time, before its true value.
    pub fn duplicate(&mut self, member: &str, value: &Value) {
        let text = String::from_utf8(std::mem::take(&mut self.body)).unwrap();
        self.body = format!("{{\"{member}\":{value},{}", &text[1..]).into_bytes();
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap();
        change(&mut body);
        self.body = body.to_string().into_bytes();
    }

    /// Sends it; whether the connection goes on.
    pub(super) fn send(&self, stream: &mut Box<dyn Wire>) -> std::io::Result<bool> {
        std::thread::sleep(self.delay);
        match self.transfer {
            Transfer::Reset => return Ok(false),
            Transfer::Silent => {
                // Ends with the connection: nothing more is expected to arrive.
                let _ = stream.read(&mut [0]);
                return Ok(false);
            }
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} Reply\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.transfer {
            Transfer::Endless => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
            _ => head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len())),
        }
        stream.write_all(head.as_bytes())?;
        match self.transfer {
            Transfer::Endless => loop {
                let body = [b" ".repeat(1024), self.body.clone()].concat();
                stream.write_all(format!("{:x}\r\n", body.len()).as_bytes())?;
                stream.write_all(&body)?;
                stream.write_all(b"\r\n")?;
            },
            Transfer::Dripping(pause) => {
                for byte in &self.body {
                    stream.write_all(&[*byte])?;
                    stream.flush()?;
                    std::thread::sleep(pause);
                }
            }
            Transfer::CutOff => stream.write_all(&self.body[..self.body.len() / 2])?,
            _ => stream.write_all(&self.body)?,
        }
        stream.flush()?;
        Ok(self.transfer != Transfer::CutOff)
    }
}
