//! Sessions and revocations, wherever they are stored.

pub mod durable;
