//! Sign-in at an OpenID provider.

mod callback_rules;
mod certified_provider;
mod client_keys;
mod front_proxy_tokens;
mod id_token_rules;
mod in_a_browser;
mod interrupted_exchanges;
mod own_provider;
mod provider_tokens;
mod response_modes;
mod secrets;
mod table;
mod token_exchange_faults;
