//! Whether a file has the right shape: keys, types, words, numbers. Every mistake is told at once,
//! and mended for the time being with the likeliest guess, so that what else is wrong can be told
//! in the same run.

use std::collections::HashSet;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::diagnostics::{Diagnostic, did_you_mean, nearest_match};
use super::document::{ConfigPath, SourceMap, to_json};
use super::recovery::{Recovery, apply, placeholder};
use super::schema::resolve_ref;
use super::yaml::YamlNode;

/// A tree that has the right shape, by itself or by guesses.
pub(super) struct CheckedDocument {
    pub(super) value: Value,
    pub(super) source_map: SourceMap,
    pub(super) errors: Vec<Diagnostic>,
    /// What was guessed, and is not to be complained about again.
    pub(super) recovered: Vec<ConfigPath>,
}

/// Checks the tree against the schema.
pub(super) fn check(mut root: YamlNode, schema: &Value) -> Result<CheckedDocument, Diagnostic> {
    let validator = jsonschema::validator_for(schema).map_err(|error| Diagnostic {
        position: root.position,
        message: format!("the schema itself is broken: {error}"),
    })?;
    quote_numbers_from_environment(&mut root, &validator);
    let mut mistakes = Vec::new();
    let mut guessed: Vec<ConfigPath> = Vec::new();
    // What a misspelt key holds is looked at once the key is mended.
    for _ in 0..MAX_ROUNDS {
        let (value, places) = to_json(&root);
        let faults = find_violations(schema, &validator, &value, &places);
        let news = faults.into_iter().filter(|fault| {
            let place = fault.recovery.path();
            !guessed.iter().any(|guess| place.is_within(guess))
        });
        let news: Vec<Violation> = news.collect();
        if news.is_empty() {
            break;
        }
        for Violation {
            diagnostic: mistake,
            recovery: repair,
        } in news
        {
            if !places.is_unresolved(repair.path()) {
                mistakes.push(mistake);
            }
            guessed.extend(apply(&mut root, repair));
        }
    }
    let (value, places) = to_json(&root);
    guessed.extend(places.unresolved().cloned());
    Ok(CheckedDocument {
        value,
        source_map: places,
        errors: mistakes,
        recovered: guessed,
    })
}

/// Mistakes inside misspelt keys inside misspelt keys.
const MAX_ROUNDS: usize = 3;

/// Everything that the schema does not like. A key that is missing because it is misspelt is told
/// once.
fn find_violations(
    schema: &Value,
    validator: &Validator,
    value: &Value,
    places: &SourceMap,
) -> Vec<Violation> {
    let mut report = ViolationReport {
        schema,
        value,
        source_map: places,
        violations: Vec::new(),
    };
    for error in validator.iter_errors(value) {
        report.report(&error);
    }
    let mut faults = report.violations;
    let renamed: HashSet<ConfigPath> = faults
        .iter()
        .filter_map(|fault| fault.recovery.renamed_path())
        .collect();
    faults.retain(|fault| {
        !matches!(fault.recovery, Recovery::Put(..)) || !renamed.contains(fault.recovery.path())
    });
    faults
}

/// A value such as `${PASSWORD}` is text where text is wanted, even when it is all digits.
fn quote_numbers_from_environment(root: &mut YamlNode, validator: &Validator) {
    let (value, places) = to_json(root);
    let mut wanted = Vec::new();
    for error in validator.iter_errors(&value) {
        collect_expected_strings(&error, &mut wanted);
    }
    for place in wanted {
        if places.is_from_environment(&place) {
            apply(root, Recovery::Quote(place));
        }
    }
}

fn collect_expected_strings(error: &ValidationError<'_>, wanted: &mut Vec<ConfigPath>) {
    match error.kind() {
        ValidationErrorKind::AnyOf { context } => {
            for error in context.iter().flatten() {
                collect_expected_strings(error, wanted);
            }
        }
        ValidationErrorKind::Type { kind } if type_names(kind).contains(&"string") => {
            wanted.push(ConfigPath::from_pointer(error.instance_path().as_str()));
        }
        _ => {}
    }
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
    fn report(&mut self, error: &ValidationError<'_>) {
        use ValidationErrorKind as K;
        let place = ConfigPath::from_pointer(error.instance_path().as_str());
        let around = self.parent_schema(error);
        match error.kind() {
            K::AdditionalProperties { unexpected } => {
                for key in unexpected {
                    self.report_unknown_key(&place, key, around);
                }
            }
            K::Required { property } => {
                self.report_missing_key(&place, property.as_str().unwrap_or_default(), around);
            }
            K::AnyOf { context } => self.report_nearest_branch(&place, context, around),
            kind => {
                let message = self.describe(&place, kind, around);
                self.report_value(&place, message, around);
            }
        }
    }

    /// The schema whose keyword the error is about.
    fn parent_schema(&self, error: &ValidationError<'_>) -> &'a Value {
        let keyword = ConfigPath::from_pointer(error.schema_path().as_str());
        keyword
            .parent()
            .and_then(|parent| self.schema.pointer(parent.pointer()))
            .unwrap_or(&Value::Null)
    }

    /// Of several shapes that a value may have, the one that it resembles is explained.
    fn report_nearest_branch(
        &mut self,
        place: &ConfigPath,
        branches: &[Vec<ValidationError<'static>>],
        around: &'a Value,
    ) {
        let mut expected = Vec::new();
        for branch in branches {
            let of_another_type = branch.iter().find_map(|error| match error.kind() {
                ValidationErrorKind::Type { kind }
                    if error.instance_path().as_str() == place.pointer() =>
                {
                    Some(type_names(kind))
                }
                _ => None,
            });
            match of_another_type {
                Some(types) => expected.extend(types),
                None => return branch.iter().for_each(|error| self.report(error)),
            }
        }
        let message = self.describe_wrong_type(place, &expected, around);
        self.report_value(place, message, around);
    }

    fn report_unknown_key(&mut self, place: &ConfigPath, key: &str, around: &'a Value) {
        let at = place.key(key);
        let known = || {
            let properties = around.get("properties").and_then(Value::as_object);
            properties
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
        };
        let message = format!("unknown key \"{key}\"{}", did_you_mean(key, known()));
        let free = |name: &&str| !self.source_map.contains(&place.key(name));
        let repair = match nearest_match(key, known()).filter(free) {
            Some(meant) => Recovery::Rename(at.clone(), meant.to_owned()),
            None => Recovery::Remove(at.clone()),
        };
        let mistake = Diagnostic {
            position: self.source_map.key_position(&at),
            message,
        };
        self.violations.push(Violation {
            diagnostic: mistake,
            recovery: repair,
        });
    }

    fn report_missing_key(&mut self, place: &ConfigPath, key: &str, around: &'a Value) {
        let mistake = Diagnostic {
            position: self.source_map.value_position(place),
            message: format!("\"{key}\" is missing"),
        };
        let property = around.get("properties").and_then(|all| all.get(key));
        let guess = placeholder(
            self.schema,
            property.unwrap_or(&Value::Null),
            mistake.position,
        );
        let repair = Recovery::Put(place.key(key), guess);
        self.violations.push(Violation {
            diagnostic: mistake,
            recovery: repair,
        });
    }

    fn report_value(&mut self, place: &ConfigPath, message: String, around: &'a Value) {
        let at = self.source_map.value_position(place);
        let repair = Recovery::Put(place.clone(), placeholder(self.schema, around, at));
        self.violations.push(Violation {
            diagnostic: Diagnostic {
                position: at,
                message,
            },
            recovery: repair,
        });
    }

    /// What a schema says of its own about values that it does not like.
    fn custom_message(&self, around: &'a Value) -> Option<&'a str> {
        let branches = around
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mut all = branches
            .chain([around])
            .map(|part| resolve_ref(self.schema, part));
        all.find_map(|part| part.get("patternErrorMessage")?.as_str())
    }

    /// What is wrong with the one value at `place`.
    fn describe(
        &self,
        place: &ConfigPath,
        kind: &ValidationErrorKind,
        around: &'a Value,
    ) -> String {
        use ValidationErrorKind as K;
        let name = display_name(place);
        match kind {
            K::Type { kind } => self.describe_wrong_type(place, &type_names(kind), around),
            K::Enum { options } => self.describe_wrong_value(place, options),
            K::Pattern { .. } => {
                let complaint = self.custom_message(around);
                let shown = self.quoted_value(place);
                format!(
                    "{shown} {}",
                    complaint.unwrap_or("is not written as it must be")
                )
            }
            K::MinItems { .. } | K::MinProperties { .. } | K::MinLength { .. } => {
                format!("{name} must not be empty")
            }
            K::MaxLength { limit } => format!("{name} must have at most {limit} characters"),
            K::Minimum { limit } => format!("{name} must be at least {limit}"),
            K::Maximum { limit } => format!("{name} must be at most {limit}"),
            other => format!(
                "{name} breaks the rule \"{}\" of the schema",
                other.keyword()
            ),
        }
    }

    fn describe_wrong_type(
        &self,
        place: &ConfigPath,
        expected: &[&'static str],
        around: &'a Value,
    ) -> String {
        if let Some(complaint) = self.custom_message(around) {
            return format!("{} {complaint}", display_name(place));
        }
        let found = match self.value.pointer(place.pointer()) {
            Some(Value::Null) | None => "empty",
            Some(Value::Bool(_)) => "true or false",
            Some(Value::Number(_)) => "a number",
            Some(Value::String(_)) => "text",
            Some(Value::Array(_)) => "a list",
            Some(Value::Object(_)) => "a mapping",
        };
        let mut wanted: Vec<&str> = Vec::new();
        for name in expected {
            let words = match *name {
                "null" => "null",
                "boolean" => "true or false",
                "integer" => "a whole number",
                "number" => "a number",
                "string" => "text",
                "array" => "a list",
                _ => "a mapping",
            };
            if !wanted.contains(&words) {
                wanted.push(words);
            }
        }
        format!(
            "{} must be {}, not {found}",
            display_name(place),
            wanted.join(" or ")
        )
    }

    fn describe_wrong_value(&self, place: &ConfigPath, options: &Value) -> String {
        let words: Vec<&str> = options
            .as_array()
            .map(|all| all.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let name = display_name(place);
        let written = self.value.pointer(place.pointer()).and_then(Value::as_str);
        let hint = did_you_mean(written.unwrap_or_default(), words.iter().copied());
        let shown = self.quoted_value(place);
        if hint.is_empty() {
            format!(
                "{name} cannot be {shown}; it must be one of {}",
                words.join(", ")
            )
        } else {
            format!("{name} cannot be {shown}{hint}")
        }
    }

    /// The value in quotes, unless it came from the environment and may be a secret.
    fn quoted_value(&self, place: &ConfigPath) -> String {
        match self.value.pointer(place.pointer()) {
            Some(Value::String(text)) if !self.source_map.is_from_environment(place) => {
                format!("\"{text}\"")
            }
            _ => "this value".to_owned(),
        }
    }
}

/// The key, or for an item its whole path.
fn display_name(place: &ConfigPath) -> String {
    match place.last() {
        None => "the file".to_owned(),
        Some(last) if last.bytes().all(|byte| byte.is_ascii_digit()) => format!("\"{place}\""),
        Some(last) => format!("\"{last}\""),
    }
}

fn type_names(kind: &TypeKind) -> Vec<&'static str> {
    match kind {
        TypeKind::Single(one) => vec![one.as_str()],
        TypeKind::Multiple(several) => several.iter().map(|one| one.as_str()).collect(),
    }
}
