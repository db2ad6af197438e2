//! HTTP/1.0 clients, which support neither chunks nor interim responses (RFC 9112, section 6.1; RFC
//! 9110, section 15.2).

use std::any::Any;

use async_trait::async_trait;
use http::{Version, header};
use pingora::http::ResponseHeader;
use pingora::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora::proxy::Session;

/// Prepares the session of an HTTP/1.0 client for the response of an upstream.
pub(in crate::proxy) fn prepare(session: &mut Session) {
    if session.req_header().version != Version::HTTP_10 {
        return;
    }
    session.as_downstream_mut().set_ignore_info_resp(true);
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Unchunked));
    session.downstream_modules_ctx = modules.build_ctx();
}

/// Removes `Transfer-Encoding` after Pingora has added it to responses without a length, so that the
/// end of the connection ends the body.
struct Unchunked;

impl HttpModuleBuilder for Unchunked {
    fn init(&self) -> Module {
        Box::new(Unchunked)
    }
}

#[async_trait]
impl HttpModule for Unchunked {
    async fn response_header_filter(
        &mut self,
        response: &mut ResponseHeader,
        _end: bool,
    ) -> pingora::Result<()> {
        response.remove_header(&header::TRANSFER_ENCODING);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
