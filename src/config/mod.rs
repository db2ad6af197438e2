//! The configuration file.
//!
//! A file passes these steps, each of which reports all errors with line and column:
//!
//! 1. `yaml` parses it into a tree with the position of every node;
//! 2. `include` merges the trees of the files that it includes;
//! 3. `environment` substitutes variables;
//! 4. `schema_check` validates the tree against the JSON Schema of the types in `file`;
//! 5. `resolve` checks what a schema cannot express, and builds [`Settings`](crate::settings::Settings).
//!
//! Only `gateway` and `cli` use this module.

mod context;
mod diagnostics;
mod document;
mod effective;
mod environment;
mod environment_types;
mod file;
mod files;
mod include;
mod keys;
mod load;
mod recovery;
mod reference;
mod resolve;
mod schema;
mod schema_check;
mod secrets;
mod source;
mod units;
mod validator;
mod warnings;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

pub use diagnostics::{Diagnostic, Diagnostics, Position};
pub use effective::EffectiveConfig;
pub use files::FilesRead;
pub use load::{Loaded, check, load, load_watched, parse, parse_with, show};
pub use reference::reference;
pub use schema::schema;
pub use secrets::Purpose;
pub use source::ConfigSource;
pub use watch::{FileWatcher, WatchError};
