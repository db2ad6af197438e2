//! Credentials, sessions and tokens: formats and rules, without I/O.

pub mod api_key;
pub mod credential;
pub mod principal;
pub mod provider_logout;
pub mod provider_sign_in;
pub mod provider_tokens;
pub mod reserved_prefixes;
pub mod sealing;
pub mod session;
pub mod token;
