//! The command line. Exit status: 0 done, 1 it failed, 2 wrong usage. What a command is asked for
//! goes to standard output, what went wrong to standard error, one line an error.

mod admin_client;
mod check;
mod connect;
mod database;
mod demo;
mod explain;
mod health;
mod keys;
mod listing;
mod output;
mod run;
mod schema;
mod sessions;
mod token;
mod users;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use admin_client::RequestError;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Diagnostics;
use crate::telemetry::logging::{Format, Logs};
use crate::telemetry::metrics::Metrics;

/// An auth gateway: sessions, revocation and distributed rate limits in front of the backends you
/// already have.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    after_help = "Exit status: 0 done, 1 it failed (the reason is on standard error), 2 wrong usage.\n\
                  Start with `portcullis demo`; it needs nothing and prints what to try."
)]
struct Cli {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

/// How the process logs.
#[derive(Debug, Clone, Copy, Args)]
pub struct Logging {
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// The least important log line that is written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: LogLevel,
}

impl Logging {
    /// Starts the log of a process that serves.
    fn start(self, metrics: &Metrics) -> anyhow::Result<Logs> {
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let level = match self.log_level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        Logs::start(format, level, metrics)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a gateway with everything embedded, and print what to try
    ///
    /// Memory store, SQLite in a temporary folder, an echoing upstream, and a user who is signed up
    /// already. Needs no file, no Redis and no network.
    ///
    /// Example: portcullis demo
    #[command(verbatim_doc_comment)]
    Demo(DemoArgs),
    /// Serve
    ///
    /// SIGHUP or a changed file reloads the configuration; SIGTERM drains and leaves.
    ///
    /// Example: portcullis run --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    Run(RunArgs),
    /// Check whether a gateway is ready
    ///
    /// Queries /ready on the admin listener, for health checks of containers: exit status 0 if the
    /// gateway takes traffic, else 1 with the reason.
    ///
    /// Example: portcullis health --admin http://127.0.0.1:9090
    #[command(verbatim_doc_comment)]
    Health(health::HealthArgs),
    /// Tell every mistake in a configuration file
    ///
    /// One line a mistake, as FILE:LINE:COLUMN: message. Nothing is started. With --connect, the store,
    /// the database and the upstreams that the file names are tried too; nothing is changed there.
    ///
    /// Example: portcullis check --config portcullis.yaml --connect
    #[command(verbatim_doc_comment)]
    Check(check::CheckArgs),
    /// Tell what would become of a request
    ///
    /// Which route takes it and why, what authentication and limits apply, where it would go; or
    /// how it would be refused. Nothing is sent.
    ///
    /// Example: portcullis explain --config portcullis.yaml GET http://app.example.com/orders/7
    #[command(verbatim_doc_comment)]
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of the configuration file, for editors
    ///
    /// Example: portcullis schema > portcullis.schema.json
    #[command(verbatim_doc_comment)]
    Schema(schema::SchemaArgs),
    /// Bring the tables of the database up to date
    #[command(subcommand)]
    Database(database::DatabaseCommand),
    /// Make keys that sign tokens
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Sign a user in without a password, or tell why a token is refused
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, show and end sessions
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Add, list and change the users in the database
    #[command(subcommand)]
    Users(users::UsersCommand),
}

/// A command that needs nothing but the configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

/// A command that shows one thing.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Which one
    #[arg(value_name = "WHICH")]
    pub named: String,
    /// JSON, as the API gives it, for programs
    #[arg(long)]
    pub json: bool,
}

/// `portcullis run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
}

/// `portcullis demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The address of the gateway
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub bind: std::net::SocketAddr,
    /// The address of the admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    pub admin_bind: std::net::SocketAddr,
}

/// Reads the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let Cli { logging, command } = Cli::parse();
    // Before any library builds a TLS configuration of its own choosing. It fails only when it was
    // done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match command {
        Command::Demo(args) => demo::run(&args, logging),
        Command::Run(args) => run::run(&args, logging),
        Command::Health(args) => health::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Database(command) => database::run(&command),
        Command::Keys(command) => keys::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Sessions(command) => sessions::run(&command),
        Command::Users(command) => users::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Several things that went wrong, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
struct ErrorLines(Vec<String>);

impl ErrorLines {
    /// Fails if there are any.
    fn fail_if_any(complaints: Vec<String>) -> anyhow::Result<()> {
        if complaints.is_empty() {
            return Ok(());
        }
        Err(ErrorLines(complaints).into())
    }
}

/// Mistakes in a configuration say themselves where they are; other errors are one line.
fn report_error(error: &anyhow::Error) {
    if let Some(mistakes) = error.downcast_ref::<Diagnostics>() {
        // Nobody is left to tell when this fails.
        let _ = writeln!(std::io::stderr().lock(), "{mistakes}");
        return;
    }
    let lines = if let Some(ErrorLines(lines)) = error.downcast_ref() {
        lines.clone()
    } else if let Some(RequestError::Rejected(refused)) = error.downcast_ref()
        && !refused.fields.is_empty()
    {
        let fields = refused.fields.iter();
        fields
            .map(|(name, what)| format!("{name}: {what}"))
            .collect()
    } else {
        vec![format!("{error:#}")]
    };
    for line in lines {
        print_error_line(&line);
    }
}

/// Says something beside what was asked for, in one line that does nothing to a terminal.
fn print_error_line(line: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(
        std::io::stderr().lock(),
        "portcullis: {}",
        output::sanitize_line(line)
    );
}

/// The metrics of a process that serves.
fn new_metrics() -> anyhow::Result<Arc<Metrics>> {
    let metrics = Metrics::new().context("the metrics could not be set up")?;
    Ok(Arc::new(metrics))
}

/// Prints what was asked for. A reader who has gone away is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
