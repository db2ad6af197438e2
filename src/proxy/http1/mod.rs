//! Engine for HTTP/1.x clients.

pub mod buffer_pool;
pub mod client;
pub mod serve;
pub mod timer_wheel;

mod request;
mod request_body;
