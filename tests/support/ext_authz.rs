//! A front proxy that queries as Envoy does by gRPC, with the published messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use http::HeaderMap as Metadata;
use portcullis::forward_auth::ext_authz_grpc::messages::{
    Address, AttributeContext, CheckRequest, CheckResponse, HeaderAppendAction, HeaderMap,
    HeaderValue, HeaderValueOption, HttpRequest, HttpResponse, Peer, Request, SocketAddress,
};
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::config::Config;
use super::gateway::{Gateway, SignedIn};
use super::grpc::{self, Reply};
use super::ports;
use super::upstream::Upstream;

/// How long a front proxy waits for anything.
const TIMEOUT: Duration = Duration::from_secs(15);

pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A gateway that Envoy queries, and the address of its authorizer.
pub struct Authorizer {
    pub gateway: Gateway,
    pub address: SocketAddr,
    _upstream: Upstream,
}

impl Authorizer {
    /// Starts one that takes part in clear, and whose peers on 127.0.0.1 may query.
    pub fn start(change: impl FnOnce(Config) -> Config) -> Authorizer {
        Authorizer::start_by(change, Gateway::start)
    }

    /// The same, started in another way.
    pub fn start_by(
        change: impl FnOnce(Config) -> Config,
        start: impl FnOnce(Config) -> Gateway,
    ) -> Authorizer {
        let (upstream, address) = (Upstream::start(), ports::free());
        let config = Config::new(upstream.address)
            .set("/forward_auth/bind", json!(address.to_string()))
            .set("/forward_auth/trusted_proxies", json!(["127.0.0.1"]));
        Authorizer {
            gateway: start(change(config)),
            address,
            _upstream: upstream,
        }
    }

    pub fn query(&self, query: &Query) -> Verdict {
        query.send(self.address)
    }

    pub fn sign_in(&self) -> SignedIn {
        self.gateway.register("alice@example.com")
    }
}

/// The message of a call about a GET of `https://shop.example`.
#[derive(Debug, Clone)]
pub struct Query {
    pub http: HttpRequest,
    pub source: Option<Peer>,
}

impl Query {
    pub fn get(target: &str) -> Query {
        let query = Query {
            http: HttpRequest {
                method: "GET".to_owned(),
                scheme: "https".to_owned(),
                host: "shop.example".to_owned(),
                path: target.to_owned(),
                ..HttpRequest::default()
            },
            source: None,
        };
        let pseudo = [
            (":authority", "shop.example"),
            (":path", target),
            (":method", "GET"),
        ];
        let query = pseudo
            .iter()
            .fold(query, |query, (name, value)| query.header(name, value));
        query.header("x-forwarded-for", "192.0.2.7")
    }

    /// Adds a header. Envoy joins those of one name.
    pub fn header(mut self, name: &str, value: &str) -> Query {
        let joined = self.http.headers.entry(name.to_owned());
        joined
            .and_modify(|joined| *joined = format!("{joined},{value}"))
            .or_insert_with(|| value.to_owned());
        self
    }

    /// Removes a header.
    pub fn without(mut self, name: &str) -> Query {
        self.http.headers.remove(name);
        self
    }

    pub fn vary(mut self, change: impl FnOnce(&mut HttpRequest)) -> Query {
        change(&mut self.http);
        self
    }

    /// Sends the headers one by one, and further ones, as with `encode_raw_headers`.
    pub fn raw(mut self, further: &[(&str, &[u8])]) -> Query {
        let joined = std::mem::take(&mut self.http.headers).into_iter();
        let joined = joined.map(|(name, value)| (name, value.into_bytes()));
        let further = further.iter();
        let further = further.map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let headers = joined.chain(further).map(|(key, raw_value)| HeaderValue {
            key,
            raw_value,
            value: String::new(),
        });
        self.http.header_map = Some(HeaderMap {
            headers: headers.collect(),
        });
        self
    }

    /// The peer of Envoy's connection.
    pub fn source(mut self, address: &str) -> Query {
        let address = address.to_owned();
        self.source = Some(Peer {
            address: Some(Address {
                socket_address: Some(SocketAddress { address }),
            }),
        });
        self
    }

    /// The body of the call.
    pub fn body(&self) -> Vec<u8> {
        framed(&CheckRequest {
            attributes: Some(AttributeContext {
                source: self.source.clone(),
                request: Some(Request {
                    http: Some(self.http.clone()),
                }),
            }),
        })
    }

    /// Sends the query over a connection of its own, in clear.
    pub fn send(&self, gateway: SocketAddr) -> Verdict {
        Verdict::of(call(gateway, CHECK, &self.body()))
    }

    /// Sends the query over a connection on which HTTP/2 is agreed.
    pub fn send_over<T>(&self, connecting: impl Future<Output = T>) -> Verdict
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let body = self.body();
        Verdict::of(RUNTIME.block_on(async { call_over(connecting.await, CHECK, &body).await }))
    }
}

/// Drives the connections of all calls.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
});

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// Calls a method with a body, over a connection of its own, in clear.
pub fn call(gateway: SocketAddr, path: &str, body: &[u8]) -> Reply {
    RUNTIME.block_on(async {
        let socket = TcpStream::connect(gateway).await.unwrap();
        call_over(socket, path, body).await
    })
}

async fn call_over<T>(io: T, path: &str, body: &[u8]) -> Reply
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let calling = grpc::call(io, "authorizer", path, &[], body);
    let reply = tokio::time::timeout(TIMEOUT, calling).await;
    reply.expect("the call takes too long")
}

/// The response to a query.
#[derive(Debug)]
pub struct Verdict {
    /// That of the client; 200 where the request may pass.
    pub status: u16,
    /// The status of `google.rpc`.
    pub code: i32,
    /// Headers toward the upstream that replace those of the request.
    pub set: BTreeMap<String, String>,
    pub removed: Vec<String>,
    /// Headers toward the client, with whether they replace those of the upstream.
    pub response: Vec<(String, String, bool)>,
    pub body: String,
    pub metadata: Metadata,
}

impl Verdict {
    /// Reads a reply, which is never an error of gRPC.
    #[track_caller]
    pub fn of(reply: Reply) -> Verdict {
        assert_eq!(reply.status, 200, "{:?}", reply.headers);
        assert_eq!(
            reply.outcome_field("grpc-status"),
            Some("0"),
            "{:?}",
            reply.trailers
        );
        let (prefix, message) = reply.body.split_at(5);
        let length = u32::try_from(message.len()).unwrap();
        assert_eq!(prefix, [&[0], &length.to_be_bytes()[..]].concat());
        let message = CheckResponse::decode(message).unwrap();
        let code = message.status.unwrap().code;
        let metadata = reply.headers;
        match message.http_response.unwrap() {
            HttpResponse::Ok(ok) => Verdict {
                status: 200,
                code,
                set: options(&ok.headers)
                    .into_iter()
                    .map(|(name, value, replaces)| {
                        assert!(replaces, "{name} is appended to that of the client");
                        (name, value)
                    })
                    .collect(),
                removed: ok.headers_to_remove,
                response: options(&ok.response_headers_to_add),
                body: String::new(),
                metadata,
            },
            HttpResponse::Denied(denied) => Verdict {
                status: u16::try_from(denied.status.unwrap().code).unwrap(),
                code,
                set: BTreeMap::new(),
                removed: Vec::new(),
                response: options(&denied.headers),
                body: denied.body,
                metadata,
            },
        }
    }

    pub fn is_allowed(&self) -> bool {
        self.status == 200 && self.code == 0
    }

    /// The values of a header toward the client.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.response.iter();
        let named = headers.filter(|(other, ..)| other == name);
        named.map(|(_, value, _)| value.as_str()).collect()
    }

    /// The code of the rejection, or `OK`.
    pub fn portcullis_code(&self) -> &str {
        self.metadata["x-portcullis-code"].to_str().unwrap()
    }

    pub fn removes(&self, name: &str) -> bool {
        self.removed.iter().any(|removed| removed == name)
    }
}

fn options(options: &[HeaderValueOption]) -> Vec<(String, String, bool)> {
    let options = options.iter().map(|option| {
        let header = option.header.clone().unwrap();
        let replaces = option.append_action() == HeaderAppendAction::OverwriteIfExistsOrAdd;
        (header.key, header.value, replaces)
    });
    options.collect()
}
