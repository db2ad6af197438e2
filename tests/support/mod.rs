//! Test harness: the real binary, a real Redis, upstreams that report what they saw, and clients
//! that send exactly the bytes of a test. Waiting is polling with a deadline, never a fixed sleep.

pub mod backend;
pub mod browser;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod echo;
pub mod fault_proxy;
pub mod frames;
pub mod front_proxy;
pub mod gateway;
pub mod grpc;
pub mod history;
pub mod http2;
pub mod http2_upstream;
pub mod issuer;
pub mod nodes;
pub mod npm;
pub mod npm_provider;
pub mod open_streams;
pub mod pebble;
pub mod ports;
pub mod postgres;
pub mod provider;
pub mod redis;
pub mod scripted_upstream;
pub mod sentinels;
pub mod servers;
pub mod source;
pub mod tls;
pub mod tokens;
pub mod upstream;
pub mod visitor;
pub mod wait;
pub mod websocket;
