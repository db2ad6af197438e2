//! `portcullis token`.

mod inspect;
mod issue;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Sign a user in without a password, for testing
    ///
    /// Creates an ordinary session and prints its access token. With --json, prints the whole login
    /// response, with the refresh token and the session token (for `Authorization: Session` or the
    /// cookie).
    ///
    /// With a store in memory, the running gateway is queried through its admin listener, for which
    /// the configuration needs an admin.token.
    ///
    /// Example:
    ///   TOKEN=$(portcullis token issue --config portcullis.yaml --user ada@example.com)
    ///   curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/orders
    #[command(verbatim_doc_comment)]
    Issue(issue::IssueArgs),
    /// Show the contents of a token, and why it would be rejected
    ///
    /// The token is read from standard input, because arguments are visible to other users.
    ///
    /// Example: portcullis token inspect --config portcullis.yaml < token.txt
    #[command(verbatim_doc_comment)]
    Inspect(inspect::InspectArgs),
}

/// Runs a command about tokens.
pub(super) fn run(command: &TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Issue(args) => issue::run(args),
        TokenCommand::Inspect(args) => inspect::run(args),
    }
}
