//! An HTTP/1.1 client that sends exactly the given bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::echo::Echo;

/// What a connection is to the client: a socket, or TLS over one.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// One connection, and what arrived on it and was not read yet.
pub struct Client {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects; reads give up after 15 seconds.
    pub fn connect(address: SocketAddr) -> Client {
        Client::from_stream(connect_socket(address).unwrap())
    }

    /// Speaks over a connection that is already there.
    pub fn from_stream(wire: impl Wire + 'static) -> Client {
        Client {
            wire: Box::new(wire),
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.try_send(bytes).unwrap();
        self
    }

    /// Sends bytes; the peer may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write_all(bytes.as_ref())?;
        self.wire.flush()
    }

    /// Sends a request and reads its response, keeping the connection.
    pub fn request(&mut self, request: &Request) -> Response {
        self.send(request.to_bytes());
        self.read_response_to(&request.method).unwrap()
    }

    /// Reads one response to a request whose response may have a body.
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("GET").unwrap()
    }

    /// Reads one response; interim ones (1xx but 101) are skipped.
    pub fn read_response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.read_head()?;
        while (100..200).contains(&response.status) && response.status != 101 {
            response = self.read_head()?;
        }
        let no_body = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
        if no_body {
            return Ok(response);
        }
        if response
            .header("transfer-encoding")
            .is_some_and(|te| te.contains("chunked"))
        {
            response.body = self.read_chunked()?;
        } else if let Some(length) = response.header("content-length") {
            response.body = self.read_exact(length.parse().map_err(io::Error::other)?)?;
        } else {
            self.wire.read_to_end(&mut self.buffer)?;
            response.body = std::mem::take(&mut self.buffer);
        }
        Ok(response)
    }

    /// Reads a response head and leaves the body where it is.
    pub fn read_head(&mut self) -> io::Result<Response> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Response::parse(&head);
            }
            self.fill_buffer()?;
        }
    }

    /// Reads until `needle` has arrived, and takes everything up to its end.
    pub fn read_until(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = find(&self.buffer, needle.as_bytes()) {
                let taken = self.buffer.drain(..at + needle.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            self.fill_buffer().unwrap();
        }
    }

    /// Whether the peer ends the connection within `deadline`; what it still sends is dropped.
    pub fn closes_within(&mut self, deadline: Duration) -> bool {
        let start = Instant::now();
        let mut sink = [0; 4096];
        while start.elapsed() < deadline {
            match self.wire.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn read_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while !self.read_line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.read_exact(size)?);
            self.read_exact(2)?;
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            self.fill_buffer()?;
        }
    }

    fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill_buffer()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn fill_buffer(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.wire.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

/// A request; what is not said is left out, but for `Host` and the length of a body.
#[derive(Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Request {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    pub fn post(target: &str) -> Request {
        Request::new("POST", target)
    }

    pub fn delete(target: &str) -> Request {
        Request::new("DELETE", target)
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Request {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn cookie(self, pair: &str) -> Request {
        self.header("Cookie", pair)
    }

    /// Says what a browser says of a call from the gateway's own pages.
    pub fn same_origin(self) -> Request {
        self.header("Sec-Fetch-Site", "same-origin")
    }

    pub fn json(self, body: &Value) -> Request {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// The bytes that go over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it on a connection of its own.
    pub fn send(&self, to: SocketAddr) -> Response {
        self.try_send(to).unwrap()
    }

    /// As [`Request::send`], for when the peer may be gone.
    pub fn try_send(&self, to: SocketAddr) -> io::Result<Response> {
        let mut client = Client::from_stream(connect_socket(to)?);
        client.try_send(self.to_bytes())?;
        client.read_response_to(&self.method)
    }
}

/// A response, with its headers in their order on the wire.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    fn parse(head: &[u8]) -> io::Result<Response> {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut parsed = httparse::Response::new(&mut headers);
        parsed.parse(head).map_err(io::Error::other)?;
        Ok(Response {
            status: parsed.code.unwrap_or_default(),
            headers: parsed
                .headers
                .iter()
                .map(|h| {
                    (
                        h.name.to_owned(),
                        String::from_utf8_lossy(h.value).into_owned(),
                    )
                })
                .collect(),
            body: Vec::new(),
        })
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every header of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// A header that has to be there and to be a whole number.
    pub fn numeric_header(&self, name: &str) -> u64 {
        let value = self
            .header(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {:?}", self.status, self.text()))
    }

    /// What a success of the gateway's own endpoints carries.
    pub fn data(&self) -> Value {
        let body = self.json();
        assert_eq!(body["success"], true, "{body}");
        body["data"].clone()
    }

    /// The stable code of an error made by the gateway.
    pub fn code(&self) -> String {
        let body = self.json();
        assert_eq!(body["success"], false, "{body}");
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Checks a refusal: status, code, and what every one of its kind has to carry.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) -> &Response {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:?}"
        );
        let error = &self.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{error}"
        );
        assert!(
            error["request_id"]
                .as_str()
                .is_some_and(|id| !id.is_empty()),
            "{error}"
        );
        if status == 401 {
            let challenge = self
                .header("www-authenticate")
                .expect("a 401 without a challenge");
            assert!(challenge.starts_with("Bearer"), "{challenge}");
        }
        if status == 503 {
            self.numeric_header("retry-after");
        }
        self
    }

    #[track_caller]
    pub fn assert_ok(&self) -> &Response {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }

    /// The request as the echoing upstream saw it, from its response.
    #[track_caller]
    pub fn echo(&self) -> Echo {
        assert_eq!(self.status, 200, "{}", self.text());
        Echo(self.json())
    }
}

/// A connected socket whose reads and writes have a deadline.
pub fn connect_socket(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.set_write_timeout(Some(Duration::from_secs(15)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
