//! The steps from the text of a configuration to settings.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::context::ResolveContext;
use super::diagnostics::{Diagnostic, Diagnostics, Position};
use super::document::{ConfigPath, SourceMap};
use super::effective::EffectiveConfig;
use super::environment::{LookUp, Substitution, UnsetVariable};
use super::file::File;
use super::files::FilesRead;
use super::include::{Document, DocumentReader};
use super::schema::{is_secret, schema};
use super::secrets::Purpose;
use super::source::ConfigSource;
use super::{resolve, schema_check, warnings};
use crate::settings::Settings;

/// The outcome of reading a configuration.
pub struct Loaded {
    /// The settings with warnings, or all errors.
    pub outcome: Result<(Settings, Diagnostics), Diagnostics>,
    /// All files that were read, to watch them.
    pub files: FilesRead,
}

/// Reads and checks a configuration, with the environment of the process.
///
/// # Errors
///
/// All errors of its files, in file order.
pub fn load(source: &ConfigSource, purpose: Purpose) -> Result<Settings, Diagnostics> {
    let outcome = load_watched(source, purpose).outcome;
    outcome.map(|(settings, _)| settings)
}

/// Reads and checks a configuration, and also returns the files that it was read from.
pub fn load_watched(source: &ConfigSource, purpose: Purpose) -> Loaded {
    let (outcome, files) = read_source(source, purpose);
    Loaded {
        outcome: outcome.map(|resolved| (resolved.settings, resolved.warnings)),
        files,
    }
}

/// Reads and checks a configuration, and returns it with all defaults.
///
/// # Errors
///
/// All errors of its files, in file order.
pub fn show(source: &ConfigSource) -> Result<EffectiveConfig, Diagnostics> {
    let (outcome, _) = read_source(source, Purpose::Show);
    let Resolved { parsed, paths, .. } = outcome?;
    Ok(EffectiveConfig::new(
        &parsed.file,
        &parsed.source_map,
        &paths,
    ))
}

/// Checks the text of a configuration file, with the environment of the process. `path` is named in
/// the errors, and relative paths are relative to its directory.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn parse(text: &str, path: &Path) -> Result<Settings, Diagnostics> {
    parse_with(text, path, &|name| std::env::var(name).ok())
}

/// Checks the text of a configuration file as `portcullis check` does, without needing its secrets.
/// Returns the warnings.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn check(text: &str, path: &Path) -> Result<Diagnostics, Diagnostics> {
    let environment = |name: &str| std::env::var(name).ok();
    let (outcome, _) = read(text, path, &environment, Purpose::Check);
    outcome.map(|resolved| resolved.warnings)
}

/// Checks the text of a configuration file, with `look_up` as the environment.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn parse_with(
    text: &str,
    path: &Path,
    look_up: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, Diagnostics> {
    let (outcome, _) = read(text, path, look_up, Purpose::Serve);
    outcome.map(|resolved| resolved.settings)
}

/// A file that conforms to the schema, if necessary by guesses.
struct Parsed {
    file: File,
    source_map: SourceMap,
    /// Locations whose values are guesses.
    recovered: Vec<ConfigPath>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

/// A valid configuration.
pub(super) struct Resolved {
    settings: Settings,
    /// Without errors.
    warnings: Diagnostics,
    parsed: Parsed,
    /// The values that are paths of files, with the paths resolved.
    paths: Vec<(ConfigPath, PathBuf)>,
}

pub(super) type ReadOutcome = (Result<Resolved, Diagnostics>, FilesRead);

fn read_source(source: &ConfigSource, purpose: Purpose) -> ReadOutcome {
    let content = source.read();
    let (outcome, mut files) = match &content {
        Ok(content) => {
            let environment = |name: &str| std::env::var(name).ok();
            let text = String::from_utf8_lossy(content);
            read(&text, source.path(), &environment, purpose)
        }
        Err(error) => (Err(error.clone()), FilesRead::default()),
    };
    if let ConfigSource::File(path) = source {
        let content = content.as_ref().ok();
        files.record(path, content.map(|content| content.as_slice()));
    }
    (outcome, files)
}

/// Checks the text of a configuration and the files to which it refers.
pub(super) fn read(text: &str, path: &Path, look_up: LookUp<'_>, purpose: Purpose) -> ReadOutcome {
    let schema = schema();
    let mut reader = DocumentReader::new(&schema, look_up);
    let parsed = parse_document(&mut reader, text, path, purpose);
    let DocumentReader { files, read, .. } = reader;
    match parsed {
        Ok(parsed) => resolve_file(parsed, files, read, purpose),
        Err(errors) => (Err(Diagnostics::new(files, errors)), read),
    }
}

/// Reads the files of a configuration and checks them against the schema.
fn parse_document(
    reader: &mut DocumentReader<'_>,
    text: &str,
    path: &Path,
    purpose: Purpose,
) -> Result<Parsed, Vec<Diagnostic>> {
    let Document { mut root, errors } = reader.read(text, path)?;
    let mut substitution = Substitution::new(reader.look_up);
    substitution.substitute(&mut root, &ConfigPath::root());
    let mut checked = schema_check::check(root, reader.schema).map_err(|error| vec![error])?;
    checked.errors.extend(errors);
    checked.errors.append(&mut substitution.errors);
    let unset = substitution.unset;
    let warnings = report_unset(unset, &mut checked.errors, reader.schema, purpose);
    match serde_json::from_value(checked.value) {
        Ok(file) => Ok(Parsed {
            file,
            source_map: checked.source_map,
            recovered: checked.recovered,
            errors: checked.errors,
            warnings,
        }),
        Err(error) => Err(report_shape(checked.errors, &error)),
    }
}

/// Reports unset variables. Those of secrets that are not needed are returned as warnings.
fn report_unset(
    unset: Vec<UnsetVariable>,
    errors: &mut Vec<Diagnostic>,
    schema: &Value,
    purpose: Purpose,
) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for variable in unset {
        let position = variable.position;
        let is_secret = variable.in_credentials || is_secret(schema, &variable.path);
        if is_secret && !purpose.needs(&variable.path) {
            let name = &variable.name;
            let message =
                format!("the environment variable {name} is not set; `portcullis run` needs it");
            warnings.push(Diagnostic { position, message });
        } else {
            let message = variable.message();
            errors.push(Diagnostic { position, message });
        }
    }
    warnings
}

/// Reports a value that the schema accepts and the types do not, unless there are other errors.
fn report_shape(mut errors: Vec<Diagnostic>, error: &serde_json::Error) -> Vec<Diagnostic> {
    if errors.is_empty() {
        errors.push(Diagnostic {
            position: Position::START,
            message: format!("the file cannot be deserialized: {error}"),
        });
    }
    errors
}

fn resolve_file(
    mut parsed: Parsed,
    files: Vec<PathBuf>,
    read: FilesRead,
    purpose: Purpose,
) -> ReadOutcome {
    let unset = parsed.warnings.clone();
    let mut context = ResolveContext {
        source_map: &parsed.source_map,
        files: &files,
        purpose,
        recovered: &parsed.recovered,
        errors: std::mem::take(&mut parsed.errors),
        warnings: std::mem::take(&mut parsed.warnings),
        read,
        resolved_paths: Vec::new(),
    };
    let settings = resolve::resolve(&parsed.file, &mut context);
    if let (Some(settings), true) = (&settings, context.errors.is_empty()) {
        warnings::check(&parsed.file, settings, &mut context);
    }
    let ResolveContext {
        errors,
        warnings,
        read,
        resolved_paths,
        ..
    } = context;
    let is_valid = errors.is_empty();
    let diagnostics = Diagnostics::new(files, errors);
    let outcome = match settings {
        Some(settings) if is_valid => Ok(Resolved {
            settings,
            warnings: diagnostics.with_warnings(warnings),
            parsed,
            paths: resolved_paths,
        }),
        _ if purpose.is_check() => Err(diagnostics.with_warnings(unset)),
        _ => Err(diagnostics),
    };
    (outcome, read)
}
