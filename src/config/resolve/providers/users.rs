//! Where the users and the tokens of a provider are kept.

use super::References;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::identity::Registration;
use crate::config::file::provider as file;
use crate::settings::provider::{RecheckOutage, TokenKeeping, UserStorage};

/// Resolves where users are kept.
pub(super) fn storage(
    raw: &file::Provider,
    references: References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> UserStorage {
    match raw.users {
        file::Users::External => {
            for key in ["create", "link_by_email"] {
                let at = location.key(key);
                if context.source_map.contains(&at) {
                    let message = format!("\"{key}\" requires \"users: database\"");
                    context.error_at_key(&at, message);
                }
            }
            UserStorage::External {
                prefix: prefix(raw, references.name),
            }
        }
        file::Users::Database => {
            let identity = &references.file.identity;
            let is_open =
                identity.builtin.registration == Registration::Open && identity.upstream.is_none();
            if raw.link_by_email && is_open {
                let message = "\"link_by_email\" requires \"identity.builtin.registration: \
                               closed\"; otherwise an identity would join whichever account was \
                               registered with its email first";
                context.error(&location.key("link_by_email"), message);
            }
            if raw.user_prefix.is_some() {
                let message = "\"user_prefix\" cannot be used with \"users: database\", where the \
                               row's ID is the user's";
                context.error_at_key(&location.key("user_prefix"), message);
            }
            UserStorage::Database {
                create: raw.create,
                link_by_email: raw.link_by_email,
            }
        }
    }
}

/// Returns the prefix of a provider's external users.
pub(in crate::config::resolve) fn prefix(raw: &file::Provider, name: &str) -> String {
    raw.user_prefix
        .clone()
        .unwrap_or_else(|| format!("{name}:"))
}

/// Resolves the handling of the provider's tokens.
pub(super) fn token_keeping(
    raw: &file::Provider,
    references: References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> TokenKeeping {
    let location = location.key("tokens");
    let tokens = &raw.tokens;
    let recheck = tokens
        .recheck
        .map(|time| context.require_positive(&location.key("recheck"), time));
    let encryption = &references.file.encryption;
    let has_key = encryption.key.is_some() || encryption.key_file.is_some();
    if recheck.is_some() && !tokens.keep {
        let message = "\"recheck\" requires \"keep: true\", because the refresh token is needed";
        context.error(&location.key("recheck"), message);
    } else if tokens.keep && !has_key {
        let message = "\"keep\" requires \"encryption.key\", with which the tokens are sealed; \
                       `portcullis keys generate --algorithm A256GCM` creates one";
        context.error(&location.key("keep"), message);
    }
    TokenKeeping {
        keep: tokens.keep,
        recheck,
        on_outage: match tokens.on_outage {
            file::RecheckOutage::Word(file::Continue::Continue) => RecheckOutage::Continue,
            file::RecheckOutage::For(time) => RecheckOutage::For(time.0),
        },
    }
}
