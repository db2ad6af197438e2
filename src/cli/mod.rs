//! The command line.
//!
//! The exit status is 0 on success, 1 on failure and 2 on wrong usage. Results go to standard
//! output, errors to standard error, one per line.

mod admin_client;
mod api_keys;
mod check;
mod completions;
mod configuration;
mod connect;
mod database;
mod demo;
mod errors;
mod explain;
mod health;
mod init;
mod keys;
mod listing;
mod manual;
mod output;
mod run;
mod schema;
mod sessions;
mod token;
mod upgrade;
mod users;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use errors::{
    ErrorLines, error_lines, print_error_line, print_warnings, report_error, wrong_usage,
};

use crate::config::{self, ConfigSource, Purpose};
use crate::settings::Settings;
use crate::telemetry::logging::{Format, Logs};
use crate::telemetry::metrics::Metrics;

/// An auth gateway: sessions, revocation and distributed rate limits in front of existing backends.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    after_help = "Exit status: 0 success, 1 failure (the reason is on standard error), 2 wrong usage.\n\
                  Start with `portcullis demo`, which needs no setup and prints commands to try, or with\n\
                  `portcullis init`, which writes a configuration file."
)]
struct Cli {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

/// Logging options.
#[derive(Debug, Clone, Copy, Args)]
pub struct Logging {
    /// Format of log lines
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// Minimum level of log lines
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
    /// Starts the log of a gateway process.
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
    /// Start a self-contained gateway and print commands to try
    ///
    /// It has a store in memory, SQLite in a temporary directory, an upstream that echoes requests,
    /// and a registered user. It needs no files, no Redis and no network.
    ///
    /// Example: portcullis demo
    #[command(verbatim_doc_comment)]
    Demo(DemoArgs),
    /// Write a configuration file
    ///
    /// Asks for the backend, the way users sign in, the store, the public address and where TLS ends.
    /// An option answers its question; at the end of standard input, the defaults are used. Secrets
    /// are generated into files of their own, readable only by their owner.
    ///
    /// Examples:
    ///   portcullis init
    ///   portcullis init --upstream http://127.0.0.1:3000 --store memory < /dev/null
    #[command(verbatim_doc_comment)]
    Init(init::InitArgs),
    /// Run the gateway
    ///
    /// SIGHUP or a changed file reloads the configuration; SIGUSR2 replaces the process without
    /// downtime, as `portcullis upgrade` does; SIGTERM drains connections and exits.
    ///
    /// Example: portcullis run --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    Run(RunArgs),
    /// Replace the running gateway by a new process, without downtime
    ///
    /// For a new binary, and for settings that a reload cannot change. The running gateway starts the
    /// binary at its own path with its own arguments, hands its listening sockets over once the new
    /// process is ready, and drains. If the new process does not start, nothing changes, and the
    /// exit status is 1, with the reason. Requires admin.control_socket.
    ///
    /// Example: portcullis upgrade --config portcullis.yaml
    #[command(verbatim_doc_comment)]
    Upgrade(upgrade::UpgradeArgs),
    /// Check whether a gateway is ready
    ///
    /// Queries /ready on the admin listener, for health checks of containers. The exit status is 0
    /// if the gateway accepts traffic, and otherwise 1, with the reason.
    ///
    /// Example: portcullis health --admin http://127.0.0.1:9090
    #[command(verbatim_doc_comment)]
    Health(health::HealthArgs),
    /// Check a configuration file
    ///
    /// Prints all errors, one per line, as FILE:LINE:COLUMN: message. Nothing is started, and secrets
    /// in environment variables may be unset, which is a warning. With --connect, also connects to
    /// the store, the database and the upstreams, without changing them.
    ///
    /// Examples:
    ///   portcullis check --config portcullis.yaml --connect
    ///   portcullis check --config portcullis.yaml --format github
    #[command(verbatim_doc_comment)]
    Check(check::CheckArgs),
    /// Show the configuration with all defaults
    #[command(subcommand)]
    Config(configuration::ConfigCommand),
    /// Explain how a request would be handled
    ///
    /// Prints the route and why it was selected, authentication, limits and the upstream, or how
    /// the request would be rejected. Nothing is sent.
    ///
    /// Example: portcullis explain --config portcullis.yaml GET http://app.example.com/orders/7
    #[command(verbatim_doc_comment)]
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of the configuration file, for editors
    ///
    /// Example: portcullis schema > portcullis.schema.json
    #[command(verbatim_doc_comment)]
    Schema(schema::SchemaArgs),
    /// Print completions for a shell
    ///
    /// Packages install them.
    ///
    /// Example: source <(portcullis completions bash)
    #[command(verbatim_doc_comment)]
    Completions(completions::CompletionsArgs),
    /// Write manual pages to a directory, for packages
    #[command(hide = true)]
    Manual(manual::ManualArgs),
    /// Update the tables of the database
    #[command(subcommand)]
    Database(database::DatabaseCommand),
    /// Generate keys that sign tokens
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Sign a user in without a password, or inspect a token
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, show and end sessions
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    ApiKeys(api_keys::ApiKeysCommand),
    /// Add, list and change the users in the database
    #[command(subcommand)]
    Users(users::UsersCommand),
}

/// The configuration that a command works with.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file; `-` for standard input
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        hide_env_values = true
    )]
    config: PathBuf,
}

impl ConfigArgs {
    /// Opens the configuration, which reads standard input if it is there.
    fn open(&self) -> ConfigSource {
        ConfigSource::open(&self.config)
    }

    /// Loads the settings, with the secrets that the command needs.
    fn load(&self, purpose: Purpose) -> anyhow::Result<Settings> {
        Ok(config::load(&self.open(), purpose)?)
    }

    /// Fails if the configuration occupies standard input, from which the command would read `what`.
    fn leave_stdin_for(&self, what: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.config != Path::new("-"),
            "standard input has the configuration and cannot have {what}, too"
        );
        Ok(())
    }
}

/// Arguments of a command that shows one object.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The object to show
    #[arg(value_name = "WHICH")]
    pub named: String,
    /// Print JSON, in the form of the API
    #[arg(long)]
    pub json: bool,
}

/// `portcullis run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// `portcullis demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address of the gateway
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub bind: std::net::SocketAddr,
    /// Address of the admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    pub admin_bind: std::net::SocketAddr,
    /// Address at which front proxies query
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9191")]
    pub forward_auth_bind: std::net::SocketAddr,
}

/// Parses the arguments, runs the command, and reports the outcome.
pub fn main() -> ExitCode {
    let Cli { logging, command } = Cli::parse();
    // Before any library builds a TLS configuration with another provider. Fails only if a provider
    // is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match command {
        Command::Demo(args) => demo::run(&args, logging),
        Command::Init(args) => init::run(&args),
        Command::Run(args) => run::run(&args, logging),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(command) => configuration::run(&command),
        Command::Explain(args) => explain::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Manual(args) => manual::run(&args),
        Command::Database(command) => database::run(&command),
        Command::Keys(command) => keys::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Sessions(command) => sessions::run(&command),
        Command::ApiKeys(command) => api_keys::run(&command),
        Command::Users(command) => users::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref::<clap::Error>() {
                error.exit();
            }
            report_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Creates the metrics of a gateway process.
fn new_metrics() -> anyhow::Result<Arc<Metrics>> {
    let metrics = Metrics::new().context("cannot set up the metrics")?;
    Ok(Arc::new(metrics))
}

/// Prints to standard output. A closed pipe is not an error.
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
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
