//! Validation of a file against the JSON Schema: keys, types, values.
//!
//! All errors are reported in one run. Each invalid value is replaced by the most likely guess, so
//! that later checks can continue.

use std::collections::HashSet;

use serde_json::Value;

use super::diagnostics::{Diagnostic, did_you_mean, nearest_match};
use super::document::{ConfigPath, SourceMap, to_json};
use super::environment_types::interpret_values_from_environment;
use super::recovery::{Recovery, apply, placeholder};
use super::schema::resolve_ref;
use super::validator::{Rule, ValidationError, Validator, ValueRule};
use super::yaml::YamlNode;

/// A document that conforms to the schema, if necessary by guesses.
pub(super) struct CheckedDocument {
    pub(super) value: Value,
    pub(super) source_map: SourceMap,
    pub(super) errors: Vec<Diagnostic>,
    /// Locations whose values are guesses.
    pub(super) recovered: Vec<ConfigPath>,
}

/// Checks the tree against the schema.
pub(super) fn check(mut root: YamlNode, schema: &Value) -> Result<CheckedDocument, Diagnostic> {
    let validator = Validator::new(schema).map_err(|error| Diagnostic {
        position: root.position,
        message: format!("the schema itself is invalid: {error}"),
    })?;
    interpret_values_from_environment(&mut root, &validator);
    let mut errors = Vec::new();
    let mut recovered: Vec<ConfigPath> = Vec::new();
    // The value of a misspelt key is checked after the key is renamed.
    for _ in 0..MAX_ROUNDS {
        let (value, source_map) = to_json(&root);
        let mut violations = find_violations(schema, &validator, &value, &source_map);
        violations.retain(|violation| {
            let location = violation.recovery.path();
            !recovered.iter().any(|guess| location.is_within(guess))
        });
        if violations.is_empty() {
            break;
        }
        for Violation {
            diagnostic,
            recovery,
        } in violations
        {
            if !source_map.is_unresolved(recovery.path()) {
                errors.push(diagnostic);
            }
            recovered.extend(apply(&mut root, recovery));
        }
    }
    let (value, source_map) = to_json(&root);
    recovered.extend(source_map.unresolved().cloned());
    Ok(CheckedDocument {
        value,
        source_map,
        errors,
        recovered,
    })
}

/// Bounds the nesting of misspelt keys whose values are checked.
const MAX_ROUNDS: usize = 3;

/// Returns all violations of the schema. A key that is missing because it is misspelt is reported
/// once.
fn find_violations<'a>(
    schema: &'a Value,
    validator: &Validator<'a>,
    value: &'a Value,
    source_map: &'a SourceMap,
) -> Vec<Violation> {
    let mut report = ViolationReport {
        schema,
        value,
        source_map,
        violations: Vec::new(),
    };
    for error in validator.errors(value) {
        report.report(&error);
    }
    let mut violations = report.violations;
    let renamed: HashSet<ConfigPath> = violations
        .iter()
        .filter_map(|violation| violation.recovery.renamed_path())
        .collect();
    violations.retain(|violation| {
        !matches!(violation.recovery, Recovery::Put(..))
            || !renamed.contains(violation.recovery.path())
    });
    violations
}

struct Violation {
    diagnostic: Diagnostic,
    recovery: Recovery,
}

struct ViolationReport<'a> {
    schema: &'a Value,
    value: &'a Value,
    source_map: &'a SourceMap,
    violations: Vec<Violation>,
}

impl<'a> ViolationReport<'a> {
    fn report(&mut self, error: &ValidationError<'a>) {
        let (path, schema) = (&error.path, error.schema);
        match &error.rule {
            Rule::UnknownKey(key) => self.report_unknown_key(path, key, schema),
            Rule::MissingKey(key) => self.report_missing_key(path, key, schema),
            Rule::AnyOf(branches) => self.report_nearest_branch(path, branches, schema),
            Rule::Value(rule) => {
                let message = self.describe(path, rule, schema);
                self.report_value(path, message, schema);
            }
        }
    }

    /// Explains the branch that the value resembles most.
    fn report_nearest_branch(
        &mut self,
        location: &ConfigPath,
        branches: &[Vec<ValidationError<'a>>],
        schema: &'a Value,
    ) {
        let mut expected = Vec::new();
        for branch in branches {
            let other_types = branch.iter().find_map(|error| match &error.rule {
                Rule::Value(ValueRule::Type(types)) if error.path == *location => Some(types),
                _ => None,
            });
            match other_types {
                Some(types) => expected.extend(types),
                None => return self.report_branch(location, branch, branches, schema),
            }
        }
        let message = self.describe_wrong_type(location, &expected, schema);
        self.report_value(location, message, schema);
    }

    /// Explains a branch; for a word that it does not have, with what the others accept.
    fn report_branch(
        &mut self,
        location: &ConfigPath,
        branch: &[ValidationError<'a>],
        branches: &[Vec<ValidationError<'a>>],
        schema: &'a Value,
    ) {
        let words = match branch {
            [error] if error.path == *location => match &error.rule {
                Rule::Value(ValueRule::Enum(words)) => Some(words),
                _ => None,
            },
            _ => None,
        };
        let Some(words) = words else {
            return branch.iter().for_each(|error| self.report(error));
        };
        let mut message = self.describe_wrong_value(location, words);
        if !message.ends_with('?') {
            for error in branches.iter().flatten() {
                if let Some(other) = self.describe_alternative(error) {
                    message = format!("{message}, or {other}");
                }
            }
        }
        self.report_value(location, message, schema);
    }

    /// Describes the values that a branch accepts whose rule is violated.
    fn describe_alternative(&self, error: &ValidationError<'a>) -> Option<&'a str> {
        match &error.rule {
            Rule::Value(ValueRule::Pattern) => {
                self.custom_message(error.schema)?.strip_prefix("is not ")
            }
            Rule::Value(ValueRule::Type(types)) => types.first().copied().and_then(type_name),
            _ => None,
        }
    }

    fn report_unknown_key(&mut self, location: &ConfigPath, key: &str, schema: &'a Value) {
        let path = location.key(key);
        let known_keys = || {
            let properties = schema.get("properties").and_then(Value::as_object);
            properties
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
        };
        let message = format!("unknown key \"{key}\"{}", did_you_mean(key, known_keys()));
        let is_unused = |name: &&str| !self.source_map.contains(&location.key(name));
        let recovery = match nearest_match(key, known_keys()).filter(is_unused) {
            Some(similar) => Recovery::Rename(path.clone(), similar.to_owned()),
            None => Recovery::Remove(path.clone()),
        };
        let diagnostic = Diagnostic {
            position: self.source_map.key_position(&path),
            message,
        };
        self.violations.push(Violation {
            diagnostic,
            recovery,
        });
    }

    fn report_missing_key(&mut self, location: &ConfigPath, key: &str, schema: &'a Value) {
        let diagnostic = Diagnostic {
            position: self.source_map.value_position(location),
            message: format!("\"{key}\" is missing"),
        };
        let property = schema.get("properties").and_then(|all| all.get(key));
        let guess = placeholder(
            self.schema,
            property.unwrap_or(&Value::Null),
            diagnostic.position,
        );
        let recovery = Recovery::Put(location.key(key), guess);
        self.violations.push(Violation {
            diagnostic,
            recovery,
        });
    }

    fn report_value(&mut self, location: &ConfigPath, mut message: String, schema: &'a Value) {
        message += &self.source_map.environment_note(location);
        let position = self.source_map.value_position(location);
        let recovery = Recovery::Put(location.clone(), placeholder(self.schema, schema, position));
        self.violations.push(Violation {
            diagnostic: Diagnostic { position, message },
            recovery,
        });
    }

    /// Returns the schema's own message for invalid values.
    fn custom_message(&self, schema: &'a Value) -> Option<&'a str> {
        let branches = schema
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mut all = branches
            .chain([schema])
            .map(|part| resolve_ref(self.schema, part));
        all.find_map(|part| part.get("patternErrorMessage")?.as_str())
    }

    /// Describes what is wrong with the value at `location`.
    fn describe(&self, location: &ConfigPath, rule: &ValueRule<'_>, schema: &'a Value) -> String {
        let name = display_name(location);
        match rule {
            ValueRule::Type(types) => self.describe_wrong_type(location, types, schema),
            ValueRule::Enum(words) => self.describe_wrong_value(location, words),
            ValueRule::Pattern => {
                let message = self.custom_message(schema);
                let value = self.quoted_value(location);
                format!(
                    "{value} {}",
                    message.unwrap_or("does not have the required form")
                )
            }
            ValueRule::NotEmpty => format!("{name} must not be empty"),
            ValueRule::MaxLength(limit) => format!("{name} must have at most {limit} characters"),
            ValueRule::Minimum(limit) => format!("{name} must be at least {limit}"),
            ValueRule::Maximum(limit) => format!("{name} must be at most {limit}"),
        }
    }

    fn describe_wrong_type(
        &self,
        location: &ConfigPath,
        expected: &[&str],
        schema: &'a Value,
    ) -> String {
        if let Some(message) = self.custom_message(schema) {
            return format!("{} {message}", display_name(location));
        }
        let actual = match self.value.pointer(location.pointer()) {
            Some(Value::Null) | None => "empty",
            Some(Value::Bool(_)) => "true or false",
            Some(Value::Number(_)) => "a number",
            Some(Value::String(_)) => "text",
            Some(Value::Array(_)) => "a list",
            Some(Value::Object(_)) => "a mapping",
        };
        let mut accepted: Vec<&str> = Vec::new();
        for name in expected {
            let description = type_name(name).unwrap_or("a mapping");
            if !accepted.contains(&description) {
                accepted.push(description);
            }
        }
        format!(
            "{} must be {}, not {actual}",
            display_name(location),
            accepted.join(" or ")
        )
    }

    fn describe_wrong_value(&self, location: &ConfigPath, values: &[&str]) -> String {
        let name = display_name(location);
        let written = self
            .value
            .pointer(location.pointer())
            .and_then(Value::as_str);
        let hint = did_you_mean(written.unwrap_or_default(), values.iter().copied());
        let quoted = self.quoted_value(location);
        if hint.is_empty() {
            format!(
                "{name} cannot be {quoted}; it must be one of {}",
                values.join(", ")
            )
        } else {
            format!("{name} cannot be {quoted}{hint}")
        }
    }

    /// Quotes a value, unless it came from the environment and may be a secret.
    fn quoted_value(&self, location: &ConfigPath) -> String {
        match self.value.pointer(location.pointer()) {
            Some(Value::String(text)) if !self.source_map.is_from_environment(location) => {
                format!("\"{text}\"")
            }
            _ => "this value".to_owned(),
        }
    }
}

/// Describes a type of JSON.
fn type_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "null" => "null",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a mapping",
        _ => return None,
    })
}

/// Returns the name of a value for messages: its key, or for an item its whole path.
fn display_name(location: &ConfigPath) -> String {
    match location.last() {
        None => "the file".to_owned(),
        Some(last) if last.bytes().all(|byte| byte.is_ascii_digit()) => format!("\"{location}\""),
        Some(last) => format!("\"{last}\""),
    }
}
