//! Types of values from the environment, which have no notation of their own.

use super::document::{ConfigPath, to_json};
use super::recovery::{Recovery, apply};
use super::validator::{Rule, ValidationError, Validator, ValueRule};
use super::yaml::YamlNode;

/// Interprets values from the environment as the schema requires: as strings, even if all digits, or
/// as numbers and booleans, even if quoted.
pub(super) fn interpret_values_from_environment(root: &mut YamlNode, validator: &Validator<'_>) {
    let (value, source_map) = to_json(root);
    let mut expected = Vec::new();
    for error in validator.errors(&value) {
        collect_expected_types(error, &mut expected);
    }
    // A string is the last resort, because every text is one.
    expected.sort_by_key(|(_, is_string)| *is_string);
    for (location, is_string) in expected {
        if source_map.is_from_environment(&location) {
            apply(root, Recovery::SetPlain(location, !is_string));
        }
    }
}

/// Collects the paths of values of a wrong type, and whether a string is expected there.
fn collect_expected_types(error: ValidationError<'_>, expected: &mut Vec<(ConfigPath, bool)>) {
    match error.rule {
        Rule::AnyOf(branches) => {
            for error in branches.into_iter().flatten() {
                collect_expected_types(error, expected);
            }
        }
        Rule::Value(ValueRule::Type(types)) if types.contains(&"string") => {
            expected.push((error.path, true));
        }
        Rule::Value(ValueRule::Type(types))
            if types
                .iter()
                .any(|name| matches!(*name, "integer" | "number" | "boolean")) =>
        {
            expected.push((error.path, false));
        }
        _ => {}
    }
}
