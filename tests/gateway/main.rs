//! The gateway as its users see it: one file per promise, the real binary, a real Redis, upstreams
//! that report what they saw. A single binary, so that everything is linked once.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests say by panicking what went wrong"
)]
#![expect(unreachable_pub, reason = "the harness is a module of this one binary")]

#[path = "../support/mod.rs"]
mod support;

mod accepted_credentials;
mod access_log;
mod acme;
mod acme_failures;
mod admin;
mod adopt_walkthrough;
mod api_bodies;
mod api_keys;
mod api_keys_admin;
mod api_keys_api;
mod api_keys_fleet;
mod api_keys_outage;
mod api_responses;
mod architecture;
mod assertions;
mod authentication;
mod backchannel_logout;
mod body_matrix;
mod body_rate;
mod bound_tokens;
mod broken_logs;
mod browser;
mod check_connect;
mod client_address;
mod clocks;
mod cluster;
mod command_line;
mod command_line_api_keys;
mod command_line_sessions;
mod command_line_users;
mod concurrent_ends;
mod connection_auth;
mod connection_limits;
mod control_socket;
mod database_tls;
mod demo;
mod durable;
mod durable_outage;
mod early_responses;
mod exchange;
mod fleet;
mod forward_auth;
mod forward_auth_browsers;
mod forward_auth_calls;
mod forward_auth_forged;
mod forward_auth_grpc;
mod forward_auth_grpc_calls;
mod forward_auth_heads;
mod forward_auth_listener;
mod forward_auth_outage;
mod forward_auth_proxies;
mod front_proxies;
mod grpc_calls;
mod guessing;
mod half_closed;
mod histories;
mod hostile_http2;
mod hostile_input;
mod http2_stream_ends;
mod http2_upstreams;
mod hygiene;
mod identities;
mod identity_backend;
mod identity_headers;
mod idle_timeouts;
mod included_files;
mod introspection;
mod introspection_callers;
mod introspection_endpoint;
mod introspection_faults;
mod introspection_of_signed_tokens;
mod introspection_real_server;
mod language;
mod leased_limits;
mod local_limits;
mod log_lines;
mod manual_and_completions;
mod metrics;
mod mixed_calls;
mod needed_secrets;
mod oidc;
mod open_streams;
mod openapi;
mod other_sign_in_page;
mod overload;
mod page_look;
mod password_cost;
mod posted_responses;
mod profile;
mod protected_resource;
mod provider_outage;
mod provider_sign_in;
mod provider_sign_in_fleet;
mod provider_sign_in_flows;
mod provider_sign_in_sessions;
mod provider_sign_out;
mod provider_tenants;
mod proxying;
mod rate_limits;
mod readme;
mod refresh;
mod refused_bodies;
mod refused_database;
mod refused_writes;
mod reload;
mod request_heads;
mod response_fields;
mod response_framing;
mod restarts;
mod revocation_replicas;
mod secrets;
mod sentinel;
mod service_manager;
mod sessions;
mod shutdown;
mod sign_in;
mod sign_in_limits;
mod sign_in_page;
mod sign_out_everywhere;
mod slow_and_stale;
mod slow_readers;
mod step_up;
mod store_data_lost;
mod store_outage;
mod stream_use;
mod streamed_uploads;
mod streaming;
mod tls;
mod tls_refusals;
mod token_floods;
mod tokens;
mod tour;
mod unconfirmed_revocations;
mod unprocessed_requests;
mod upgrade_failures;
mod upgrades;
mod upstreams;
mod user_changes;
mod user_prefixes;
mod vectors;
mod via;
