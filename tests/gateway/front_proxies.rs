//! Behind nginx, HAProxy and Caddy, with the files of `deploy/proxies` as they are shipped.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::{Message, client};

use crate::support::client::{Request, connect_socket};
use crate::support::config::Config;
use crate::support::front_proxy::{FrontProxy, NAME, Program};
use crate::support::gateway::Gateway;
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// A proxy in front of a gateway that is configured as its file says.
struct Deployment {
    proxy: FrontProxy,
    gateway: Gateway,
    upstream: Upstream,
}

impl Deployment {
    fn start(program: Program) -> Option<Deployment> {
        Deployment::start_with(program, str::to_owned)
    }

    /// `edit` varies the file of the proxy.
    fn start_with(program: Program, edit: impl FnOnce(&str) -> String) -> Option<Deployment> {
        let (upstream, certificate) = (Upstream::start(), tls::certificate(NAME));
        let mut config =
            Config::new(upstream.address).set("/listeners/0/trusted_proxies", json!(["127.0.0.1"]));
        if program == Program::HaproxyPassthrough {
            let cert = config.write_beside("site.pem", &certificate.cert);
            let key = config.write_beside("site.key", &certificate.key);
            let tls = json!({ "certificates": [{ "cert": cert, "key": key }] });
            config.put("/listeners/0/tls", tls);
            config.put("/listeners/0/proxy_protocol", json!(true));
        }
        let gateway = Gateway::start(config);
        let proxy = FrontProxy::start(program, &gateway, certificate, edit)?;
        Some(Deployment {
            proxy,
            gateway,
            upstream,
        })
    }
}

/// Runs a check behind each of these that is installed.
fn behind(programs: &[Program], check: impl Fn(Program, &Deployment)) {
    for program in programs {
        if let Some(deployment) = Deployment::start(*program) {
            check(*program, &deployment);
        }
    }
}

/// Connects from another loopback address than the proxy does.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn client_address_host_and_scheme_are_those_of_the_client() {
    let client = Ipv4Addr::new(127, 0, 0, 2);
    behind(&Program::ALL, |program, deployment| {
        let socket = connect_from(client, deployment.proxy.address);
        let mut client = deployment.proxy.connect_over(socket);
        let spoofed = Request::get("/public/a")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Host", "evil.example")
            .header("X-Forwarded-Prefix", "/evil")
            .header("Forwarded", "for=203.0.113.9;proto=http;host=evil.example");
        let echo = client.request(&spoofed).echo();
        let of = |name: &str| echo.all(name).join(", ");
        // The client first, then the trusted proxy.
        let chain = of("x-forwarded-for");
        assert_eq!(
            chain.split(", ").next(),
            Some("127.0.0.2"),
            "{program:?}: {chain}"
        );
        assert_eq!(of("x-forwarded-proto"), "https", "{program:?}");
        assert_eq!(of("x-forwarded-host"), NAME, "{program:?}");
        assert_eq!(of("host"), NAME, "{program:?}");
        assert_eq!(
            of("forwarded") + &of("x-forwarded-prefix"),
            "",
            "{program:?}"
        );
    });
}

#[test]
fn http2_clients_reach_the_upstream() {
    behind(&Program::ALL, |program, deployment| {
        let http2 = deployment.proxy.connect_http2();
        let (status, body) = http2.request("GET", "/public/a?b=%2f", &[("x-one", "1")]);
        assert_eq!(status, 200, "{program:?}: {body}");
        assert!(
            body.contains(r#""target":"/public/a?b=%2f""#),
            "{program:?}: {body}"
        );
    });
}

#[test]
fn websockets_pass_both_ways() {
    behind(&Program::ALL, |program, deployment| {
        let stream = deployment.proxy.connect_stream();
        let (mut socket, _) = client(format!("ws://{NAME}/public/ws"), stream)
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        socket.send(Message::text("hello")).unwrap();
        let reply = socket.read().unwrap();
        assert_eq!(reply.into_text().unwrap().as_str(), "hello", "{program:?}");
    });
}

#[test]
fn events_arrive_while_the_stream_is_open() {
    behind(&Program::ALL, |program, deployment| {
        let mut client = deployment.proxy.connect();
        client.send(Request::get("/public/sse").to_bytes());
        assert_eq!(client.read_head().unwrap().status, 200, "{program:?}");
        client.read_until("hello");
        assert_eq!(deployment.upstream.publish("second event"), 1);
        client.read_until("second event");
    });
}

/// Uploads a body with a client that reads the response meanwhile: Caddy forwards a response once it
/// has read more of the body. Returns status and body.
fn upload_with_curl(deployment: &Deployment, bytes: usize) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'x'; bytes]).unwrap();
    let output = Command::new("curl")
        .args(["--silent", "--insecure", "--http1.1", "--max-time", "20"])
        .args([
            "--connect-to",
            &format!("{NAME}::{}", deployment.proxy.address),
        ])
        .args(["--header", "Expect:", "--write-out", "\n%{http_code}"])
        .arg("--data-binary")
        .arg(format!("@{}", file.display()))
        .arg(format!("https://{NAME}/public/a"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = printed.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn bodies_and_heads_are_bounded_by_the_gateway() {
    behind(&Program::ALL, |program, deployment| {
        let send = |request: Request| deployment.proxy.connect().request(&request);
        let upload = |bytes: usize| send(Request::post("/public/a").body(vec![b'x'; bytes]));
        assert_eq!(upload(2 << 20).status, 200, "{program:?}");
        let (status, body) = upload_with_curl(deployment, 11 << 20);
        assert_eq!(status, "413", "{program:?}: {body}");
        assert!(body.contains("BODY_TOO_LARGE"), "{program:?}: {body}");
        // Tokens of some providers are this long.
        let cookie = format!("token={}", "x".repeat(12 << 10));
        let echo = send(Request::get("/public/a").cookie(&cookie)).echo();
        assert_eq!(echo.header("cookie"), Some(cookie), "{program:?}");
        let dots = send(Request::get("/public/../private/a"));
        assert_eq!(dots.status, 400, "{program:?}: {}", dots.text());
    });
}

/// Heads whose end of body two servers could read differently, with a request in the body.
fn ambiguous_requests() -> Vec<String> {
    let inner = format!("GET /public/smuggled HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let length = inner.len();
    let chunked = format!("0\r\n\r\n{inner}");
    let fields = [
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked",
            length + 5
        ),
        format!(
            "Transfer-Encoding: chunked\r\nContent-Length: {}",
            length + 5
        ),
        format!("Content-Length: 5\r\nContent-Length: {}", length + 5),
        format!("Content-Length: {}, 5", length + 5),
        "Transfer-Encoding: xchunked".to_owned(),
        "Transfer-Encoding: chunked, identity".to_owned(),
        "Transfer-Encoding: identity, chunked".to_owned(),
        "Transfer-Encoding : chunked".to_owned(),
        "Transfer-Encoding:\tchunked".to_owned(),
        "Transfer-Encoding: \x0bchunked".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked".to_owned(),
        "X: y\nTransfer-Encoding: chunked".to_owned(),
        format!("Content-Length: +{}", length + 5),
        format!("Content_Length: {}", length + 5),
    ];
    let heads = fields.iter().map(|fields| {
        format!("POST /public/outer HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n\r\n{chunked}")
    });
    let wrong_sizes = ["5;\n", "0x5\r\n", "5 \r\n", "+5\r\n"].map(|size| {
        format!(
            "POST /public/outer HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n\
             {size}hello\r\n0\r\n\r\n{inner}"
        )
    });
    heads.chain(wrong_sizes).collect()
}

/// What the client pipelines itself is its own request and may pass; a request that only one of the
/// two servers sees would take the response of another client.
#[test]
fn no_request_is_smuggled_to_another_client() {
    behind(&Program::HTTP, |program, deployment| {
        for bytes in ambiguous_requests() {
            let socket = connect_socket(deployment.proxy.address).unwrap();
            // Some proxies wait for the rest of the body.
            let patience = Duration::from_millis(500);
            socket.set_read_timeout(Some(patience)).unwrap();
            let mut attacker = deployment.proxy.connect_over(socket);
            let _ = attacker.try_send(&bytes);
            let _ = attacker.read_response_to("GET");
            // They share the proxy's connections to the gateway with the attacker.
            for victim in ["one", "two"] {
                let target = format!("/public/victim-{victim}");
                let response = deployment.proxy.connect().request(&Request::get(&target));
                assert_eq!(response.echo().target(), target, "{program:?}: {bytes:?}");
            }
        }
    });
}

/// Otherwise a request may meet a connection that the gateway is closing, and is lost.
#[test]
fn proxy_closes_idle_connections_before_the_gateway() {
    for (program, shipped, shorter) in [
        (
            Program::Nginx,
            "keepalive_timeout 60s;",
            "keepalive_timeout 1s;",
        ),
        (Program::Caddy, "keepalive 60s", "keepalive 1s"),
        // It closes half of its idle connections every five seconds.
        (Program::Haproxy, "http-reuse safe", "http-reuse safe"),
    ] {
        let edit = |file: &str| {
            assert!(file.contains(shipped), "{program:?}");
            file.replace(shipped, shorter)
        };
        // The gateway would keep connections for 75 seconds.
        let Some(deployment) = Deployment::start_with(program, edit) else {
            continue;
        };
        let open = || {
            deployment
                .gateway
                .metric("portcullis_connections_open", &[])
        };
        deployment
            .proxy
            .connect()
            .request(&Request::get("/public/a"))
            .assert_ok();
        eventually(&format!("{program:?} closes its idle connections"), || {
            (open() == 0.0).then_some(())
        });
    }
}
