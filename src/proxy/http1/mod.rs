//! Engine for HTTP/1.x clients.

pub mod buffer_pool;
pub mod client;
pub mod date;
pub mod pool;
pub mod serve;
pub mod timer_wheel;

mod accounting;
pub(super) mod dial;
mod download;
mod exchange;
mod field_runs;
mod forward;
mod future_pool;
pub(super) mod http2_pool;
mod http2_request;
mod http2_stream;
mod query;
mod quiet_limit;
mod request;
mod request_body;
mod request_writer;
mod response_body;
mod response_writer;
mod tunnel;
mod upload;
mod upstream;

#[cfg(test)]
mod tests;
