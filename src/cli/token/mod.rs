//! `portcullis token`.

mod inspect;
mod issue;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Sign a user in without a password, for testing
    ///
    /// Makes a session like any other, and prints its access token; with --json all that a login
    /// answers, so also the refresh token and the session token (for `Authorization: Session` or the
    /// cookie).
    ///
    /// Where the store is in memory the running gateway is asked, through its admin listener; the
    /// configuration needs an admin.token for that.
    ///
    /// Example:
    ///   TOKEN=$(portcullis token issue --config portcullis.yaml --user ada@example.com)
    ///   curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/orders
    #[command(verbatim_doc_comment)]
    Issue(issue::IssueArgs),
    /// Show what a token says, and why it would be refused
    ///
    /// The token is read from standard input: as an argument, others could see it.
    ///
    /// Example: portcullis token inspect --config portcullis.yaml < token.txt
    #[command(verbatim_doc_comment)]
    Inspect(inspect::InspectArgs),
}

/// Does what is asked for with tokens.
pub(super) fn run(command: &TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Issue(args) => issue::run(args),
        TokenCommand::Inspect(args) => inspect::run(args),
    }
}
