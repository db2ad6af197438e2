//! Decides what happens to a request.

pub mod admission;
pub mod assertions;
pub mod html_page;
pub mod snapshot;
