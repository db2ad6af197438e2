//! A browser without a window: cookies, redirects and forms by hand, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use cookie::Cookie;
use rustls::ClientConfig;
use url::Url;

use super::client::{Client, Request, Response, connect_socket};
use super::tls::{self, Certificate};

/// Browsers give up after as many.
const MAX_HOPS: usize = 20;

/// A visitor with its cookies. Every host name is this machine.
#[derive(Clone, Default)]
pub struct Visitor {
    cookies: Vec<Stored>,
    trusted: Option<Arc<ClientConfig>>,
    /// Whether cookies that are `Secure` are sent in clear.
    trusts_loopback: bool,
}

#[derive(Clone)]
struct Stored {
    name: String,
    value: String,
    host: String,
    path: String,
    is_secure: bool,
    /// The whole line, to look at its attributes.
    line: String,
}

/// A page, and the way to it.
#[derive(Debug)]
pub struct Visit {
    pub url: Url,
    pub response: Response,
    /// Every address on the way, the page's own last.
    pub hops: Vec<Url>,
}

impl Visitor {
    pub fn new() -> Visitor {
        Visitor::default()
    }

    /// One that trusts the certificate of an `https` provider.
    pub fn trusting(certificate: &Certificate) -> Visitor {
        Visitor {
            cookies: Vec::new(),
            trusted: Some(tls::client(certificate, &[])),
            trusts_loopback: false,
        }
    }

    /// One that takes loopback for secure, as browsers do.
    pub fn on_loopback() -> Visitor {
        Visitor {
            trusts_loopback: true,
            ..Visitor::default()
        }
    }

    /// Opens a page and follows redirects, and forms that submit themselves, to the end.
    #[track_caller]
    pub fn open(&mut self, url: &str) -> Visit {
        self.follow(url, |_| false)
    }

    /// The same, but stops before an address to which `stops` applies; the response is then the redirect.
    #[track_caller]
    pub fn follow(&mut self, url: &str, stops: impl Fn(&Url) -> bool) -> Visit {
        self.go(Url::parse(url).unwrap(), None, stops)
    }

    /// Submits a form and follows what comes back to the end.
    #[track_caller]
    pub fn submit(&mut self, url: &Url, fields: &[(&str, &str)]) -> Visit {
        self.submit_until(url, fields, |_| false)
    }

    /// The same, but stops before an address to which `stops` applies.
    #[track_caller]
    pub fn submit_until(
        &mut self,
        url: &Url,
        fields: &[(&str, &str)],
        stops: impl Fn(&Url) -> bool,
    ) -> Visit {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.go(url.clone(), Some(fields.iter().map(owned).collect()), stops)
    }

    #[track_caller]
    fn go(
        &mut self,
        mut url: Url,
        mut form: Option<Vec<(String, String)>>,
        stops: impl Fn(&Url) -> bool,
    ) -> Visit {
        let mut hops = Vec::new();
        // Browsers name the page that a form is on.
        let mut origin = url.origin().ascii_serialization();
        loop {
            assert!(hops.len() < MAX_HOPS, "a redirect loop: {hops:#?}");
            hops.push(url.clone());
            let response = match form.take() {
                Some(fields) => self.post(&url, &origin, &fields),
                None => self.get(&url),
            };
            let next = match response.header("location") {
                Some(location) if (300..400).contains(&response.status) => {
                    url.join(location).unwrap()
                }
                _ => match self_submitting_form(&response) {
                    Some((action, fields)) => {
                        form = Some(fields);
                        origin = url.origin().ascii_serialization();
                        url.join(&action).unwrap()
                    }
                    None => {
                        return Visit {
                            url,
                            response,
                            hops,
                        };
                    }
                },
            };
            if stops(&next) {
                hops.push(next);
                return Visit {
                    url,
                    response,
                    hops,
                };
            }
            url = next;
        }
    }

    /// Opens one address and stays there.
    pub fn get(&mut self, url: &Url) -> Response {
        self.send(url, navigation("GET", url))
    }

    /// Submits a form of a page at this origin, and stays there.
    pub fn post(&mut self, url: &Url, origin: &str, fields: &[(String, String)]) -> Response {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        let body = body.extend_pairs(fields).finish();
        let request = navigation("POST", url)
            .header("Origin", origin)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body);
        self.send(url, request)
    }

    /// Sends a request with the cookies of its address, and keeps those of the response.
    pub fn send(&mut self, url: &Url, request: Request) -> Response {
        let cookies = self.cookie_header(url);
        let request = match &*cookies {
            "" => request,
            cookies => request.cookie(cookies),
        };
        let response = self.connect(url).request(&request);
        for line in response.all("set-cookie") {
            self.keep(url, line);
        }
        response
    }

    fn connect(&self, url: &Url) -> Client {
        let port = url.port_or_known_default().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        match (url.scheme(), &self.trusted) {
            ("https", Some(trusted)) => {
                let host = url.host_str().unwrap();
                Client::from_stream(tls::connect(address, host, trusted).unwrap())
            }
            _ => Client::from_stream(connect_socket(address).unwrap()),
        }
    }

    fn keep(&mut self, url: &Url, line: &str) {
        let cookie = Cookie::parse(line.to_owned()).unwrap();
        let host = url.host_str().unwrap().to_owned();
        let path = cookie.path().unwrap_or("/").to_owned();
        let is_same =
            |old: &Stored| old.name == cookie.name() && old.host == host && old.path == path;
        self.cookies.retain(|old| !is_same(old));
        if cookie.max_age().is_some_and(|age| age.is_zero()) || cookie.value().is_empty() {
            return;
        }
        self.cookies.push(Stored {
            name: cookie.name().to_owned(),
            value: cookie.value().to_owned(),
            host,
            path,
            is_secure: cookie.secure() == Some(true),
            line: line.to_owned(),
        });
    }

    /// What it sends as `Cookie` to an address; longer paths first.
    pub fn cookie_header(&self, url: &Url) -> String {
        let is_sent = |cookie: &&Stored| {
            let below = url.path().strip_prefix(cookie.path.trim_end_matches('/'));
            Some(&*cookie.host) == url.host_str()
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && (!cookie.is_secure || self.trusts_loopback || url.scheme() == "https")
        };
        let mut sent: Vec<_> = self.cookies.iter().filter(is_sent).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs = sent
            .iter()
            .map(|cookie| format!("{}={}", cookie.name, cookie.value));
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// The lines by which cookies were set that it keeps, those whose name contains this.
    pub fn cookies(&self, name: &str) -> Vec<String> {
        let named = self.cookies.iter().filter(|c| c.name.contains(name));
        named.map(|cookie| cookie.line.clone()).collect()
    }

    /// Name and value of the session cookie.
    pub fn session_cookie(&self) -> Option<String> {
        let is_session =
            |cookie: &&Stored| matches!(&*cookie.name, "portcullis" | "__Host-portcullis");
        let cookie = self.cookies.iter().find(is_session)?;
        Some(format!("{}={}", cookie.name, cookie.value))
    }

    /// Loses the cookies whose name contains this.
    pub fn lose_cookies(&mut self, name: &str) {
        self.cookies.retain(|cookie| !cookie.name.contains(name));
    }
}

impl Visit {
    /// How often it came by an address with this path.
    pub fn visits(&self, path: &str) -> usize {
        self.hops.iter().filter(|url| url.path() == path).count()
    }

    /// Target and hidden fields of the first form of the page.
    pub fn form(&self) -> (Url, Vec<(String, String)>) {
        let (action, fields) = first_form(&self.response.text()).unwrap();
        (self.url.join(&action).unwrap(), fields)
    }

    /// The address of the first link of the page that leads to such a path.
    pub fn link(&self, path: &str) -> Option<Url> {
        let text = self.response.text();
        let links = text.split("<a ").skip(1);
        let mut addresses = links.filter_map(|tag| attribute(tag, "href"));
        let found = addresses.find(|address| address.contains(path))?;
        self.url.join(&found).ok()
    }

    /// The first address on the way whose path starts so.
    pub fn hop(&self, path: &str) -> Option<&Url> {
        self.hops.iter().find(|url| url.path().starts_with(path))
    }
}

/// What a browser sends for a page.
fn navigation(method: &str, url: &Url) -> Request {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap()),
        None => url.host_str().unwrap().to_owned(),
    };
    Request::new(method, &target)
        .header("Host", &host)
        .header(
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        )
        .header("Sec-Fetch-Mode", "navigate")
        .header("Sec-Fetch-Dest", "document")
        .header("Connection", "close")
}

/// Target and fields of the form of a page that submits itself.
fn self_submitting_form(page: &Response) -> Option<(String, Vec<(String, String)>)> {
    let text = page.text();
    text.contains(".submit()")
        .then(|| first_form(&text))
        .flatten()
}

/// Target and hidden fields of the first form of a page.
fn first_form(text: &str) -> Option<(String, Vec<(String, String)>)> {
    let (_, form) = text.split_once("<form")?;
    let (form, _) = form.split_once("</form>")?;
    let fields = form.split("<input").skip(1);
    let hidden = fields.filter(|tag| tag.contains("type=\"hidden\""));
    let pairs = hidden.map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
    Some((attribute(form, "action")?, pairs.collect::<Option<_>>()?))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    let value = &rest[..rest.find('"')?];
    let value = value
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&amp;", "&");
    Some(value)
}
