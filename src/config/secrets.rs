//! Which secrets a command needs, and stand-ins for those that it does not need.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::document::ConfigPath;
use super::schema::is_matched_header;

/// What a configuration is loaded for. Secrets that this does not need may be missing; settings then
/// have random values in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve, which needs all secrets.
    Serve,
    /// To check the file. Needs no secret, but files with secrets must be valid.
    Check,
    /// As `Check`, and to connect to the store and the database.
    Connect,
    /// To show the file, or to use a setting that is not secret. Needs no secret.
    Show,
    /// To explain what the gateway would do. Needs the values that routes match on.
    Explain,
    /// To work on the database.
    Database,
    /// To work on the store and the database.
    Sessions,
    /// To sign tokens for sessions in the store and the database.
    IssueTokens,
    /// To verify tokens.
    InspectTokens,
    /// To call the admin listener of a running gateway.
    CallGateway,
}

impl Purpose {
    /// Whether the secret at this path is needed.
    pub(super) fn needs(self, location: &ConfigPath) -> bool {
        if is_matched_header(location) {
            return matches!(self, Purpose::Serve | Purpose::Explain);
        }
        let introspection = ConfigPath::root().key("tokens").key("introspection");
        if location.is_within(&introspection) {
            return matches!(self, Purpose::Serve | Purpose::Connect);
        }
        let sections: &[&str] = match self {
            Purpose::Serve => return true,
            Purpose::Check | Purpose::Show | Purpose::Explain => &[],
            Purpose::Connect | Purpose::Sessions => &["store", "database"],
            Purpose::Database => &["database"],
            Purpose::IssueTokens => &["store", "database", "tokens"],
            Purpose::InspectTokens => &["tokens"],
            Purpose::CallGateway => &["admin"],
        };
        let mut sections = sections.iter();
        sections.any(|section| location.is_within(&ConfigPath::root().key(section)))
    }

    /// Whether the file with a secret, whose path is here, is read.
    pub(super) fn reads_file(self, location: &ConfigPath) -> bool {
        self.is_check() || self.needs(location)
    }

    /// Whether the file itself is of interest, and all that can be said about it.
    pub(super) fn is_check(self) -> bool {
        matches!(self, Purpose::Check | Purpose::Connect)
    }
}

/// Creates a random secret that satisfies the rules for every secret that is not a PEM key: an
/// encryption key has the strictest, 32 bytes in base64.
pub(super) fn stand_in() -> SecretString {
    STANDARD.encode(rand::random::<[u8; 32]>()).into()
}
