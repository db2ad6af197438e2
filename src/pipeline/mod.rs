//! Decides what happens to a request.

pub mod admission;
pub mod assertions;
pub mod client_response;
pub mod facts;
pub mod header_fields;
pub mod hop_by_hop;
pub mod html_page;
pub mod snapshot;
pub mod upstream_request;
pub mod via;
