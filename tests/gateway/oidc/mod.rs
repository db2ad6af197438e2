//! Sign-in at an OpenID provider.

mod client_keys;
mod own_provider;
mod provider_tokens;
