//! TLS handshakes of clients, and those by which a certificate authority validates a domain.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::pipeline::acme_challenge::{expects_handshakes, handshake_config};
use crate::proxy::worker::Worker;
use crate::settings::ReloadableListener;
use crate::tls;

/// Completes a handshake; `None`: it was that of a certificate authority, which sends nothing more.
pub(super) async fn accept(
    stream: TcpStream,
    config: &Arc<rustls::ServerConfig>,
    listener: &ReloadableListener,
    worker: &Worker,
) -> io::Result<Option<Box<TlsStream<TcpStream>>>> {
    if !expects_handshakes(listener) {
        let accepted = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
        return Ok(Some(Box::new(accepted)));
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let challenge = match tls::challenged_domain(&start.client_hello()) {
        Some(domain) => handshake_config(&domain, listener, &worker.admission.store).await,
        None => None,
    };
    match challenge {
        Some(config) => {
            start.into_stream(config).await?.shutdown().await?;
            Ok(None)
        }
        // A challenge that is not expected fails, because no protocol is common.
        None => {
            let accepted = start.into_stream(Arc::clone(config)).await?;
            Ok(Some(Box::new(accepted)))
        }
    }
}
