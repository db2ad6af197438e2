//! Sign-in at an OpenID provider.

mod own_provider;
mod provider_tokens;
