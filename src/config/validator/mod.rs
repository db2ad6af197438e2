//! Validates a value against the JSON Schema of the configuration. Supports the keywords that this
//! schema uses; a test fails if another one appears.

use std::cmp::Ordering;
use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Number, Value};

use super::document::ConfigPath;
use super::schema::resolve_ref;

/// A rule of the schema that a value violates.
pub(super) struct ValidationError<'s> {
    /// Path of the value.
    pub(super) path: ConfigPath,
    /// The subschema that contains the rule.
    pub(super) schema: &'s Value,
    pub(super) rule: Rule<'s>,
}

pub(super) enum Rule<'s> {
    UnknownKey(String),
    MissingKey(&'s str),
    /// The errors of each branch.
    AnyOf(Vec<Vec<ValidationError<'s>>>),
    Value(ValueRule<'s>),
}

/// A rule about the value itself.
pub(super) enum ValueRule<'s> {
    /// The permitted types.
    Type(Vec<&'s str>),
    Enum(Vec<&'s str>),
    Pattern,
    /// A minimum length. Those of the schema are all 1.
    NotEmpty,
    MaxLength(&'s Value),
    Minimum(&'s Value),
    Maximum(&'s Value),
}

/// A schema with its patterns compiled.
pub(super) struct Validator<'s> {
    root: &'s Value,
    patterns: HashMap<&'s str, Regex>,
}

impl<'s> Validator<'s> {
    /// Compiles the patterns of a schema.
    pub(super) fn new(root: &'s Value) -> Result<Validator<'s>, regex::Error> {
        let mut patterns = HashMap::new();
        compile_patterns(root, &mut patterns)?;
        Ok(Validator { root, patterns })
    }

    /// Returns every error in `value`.
    pub(super) fn errors(&self, value: &Value) -> Vec<ValidationError<'s>> {
        self.check(self.root, value, &ConfigPath::root())
    }

    fn check(
        &self,
        schema: &'s Value,
        value: &Value,
        path: &ConfigPath,
    ) -> Vec<ValidationError<'s>> {
        let mut errors = Vec::new();
        for (keyword, argument) in schema.as_object().into_iter().flatten() {
            match (keyword.as_str(), value) {
                ("$ref", _) => {
                    errors.extend(self.check(resolve_ref(self.root, schema), value, path))
                }
                ("anyOf", _) => {
                    let branches = array(argument).iter();
                    let branches = branches.map(|branch| self.check(branch, value, path));
                    let branches: Vec<_> = branches.collect();
                    if !branches.iter().any(Vec::is_empty) {
                        errors.push(error_at(schema, path, Rule::AnyOf(branches)));
                    }
                }
                ("items", Value::Array(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        errors.extend(self.check(argument, item, &path.item(index)));
                    }
                }
                ("properties", Value::Object(object)) => {
                    for (key, part) in argument.as_object().into_iter().flatten() {
                        if let Some(value) = object.get(key) {
                            errors.extend(self.check(part, value, &path.key(key)));
                        }
                    }
                }
                ("additionalProperties", Value::Object(object)) => {
                    errors.extend(self.check_additional(schema, argument, object, path));
                }
                ("required", Value::Object(object)) => {
                    let missing = strings(argument).into_iter();
                    let missing = missing.filter(|key| !object.contains_key(*key));
                    errors.extend(missing.map(|key| error_at(schema, path, Rule::MissingKey(key))));
                }
                (keyword, _) => {
                    let rule = self.check_value(keyword, argument, value);
                    errors.extend(rule.map(|rule| error_at(schema, path, Rule::Value(rule))));
                }
            }
        }
        errors
    }

    /// Checks the keys that `properties` does not name.
    fn check_additional(
        &self,
        schema: &'s Value,
        argument: &'s Value,
        object: &Map<String, Value>,
        path: &ConfigPath,
    ) -> Vec<ValidationError<'s>> {
        let named = |key: &str| {
            schema
                .get("properties")
                .is_some_and(|all| all.get(key).is_some())
        };
        let mut errors = Vec::new();
        for (key, value) in object.iter().filter(|(key, _)| !named(key)) {
            if *argument == Value::Bool(false) {
                errors.push(error_at(schema, path, Rule::UnknownKey(key.clone())));
            } else {
                errors.extend(self.check(argument, value, &path.key(key)));
            }
        }
        errors
    }

    /// Checks a keyword that has no subschema. Returns `None` for a keyword that applies to another type,
    /// and for an annotation.
    fn check_value(
        &self,
        keyword: &str,
        argument: &'s Value,
        value: &Value,
    ) -> Option<ValueRule<'s>> {
        let shorter = |length: usize| {
            argument
                .as_u64()
                .is_some_and(|limit| (length as u64) < limit)
        };
        match (keyword, value) {
            ("type", _) => {
                let mut types = strings(argument);
                // Messages name null first.
                types.sort_by_key(|name| *name != "null");
                (!types.iter().any(|name| has_type(value, name))).then_some(ValueRule::Type(types))
            }
            ("enum", _) => {
                (!array(argument).contains(value)).then(|| ValueRule::Enum(strings(argument)))
            }
            ("pattern", Value::String(text)) => {
                let pattern = self.patterns.get(argument.as_str()?)?;
                (!pattern.is_match(text)).then_some(ValueRule::Pattern)
            }
            ("minItems", Value::Array(items)) => {
                shorter(items.len()).then_some(ValueRule::NotEmpty)
            }
            ("minLength", Value::String(text)) => {
                shorter(text.chars().count()).then_some(ValueRule::NotEmpty)
            }
            ("maxLength", Value::String(text)) => {
                let limit = argument.as_u64()?;
                (text.chars().count() as u64 > limit).then_some(ValueRule::MaxLength(argument))
            }
            ("minimum", Value::Number(number)) => (compare(number, argument)? == Ordering::Less)
                .then_some(ValueRule::Minimum(argument)),
            ("maximum", Value::Number(number)) => (compare(number, argument)? == Ordering::Greater)
                .then_some(ValueRule::Maximum(argument)),
            _ => None,
        }
    }
}

fn error_at<'s>(schema: &'s Value, path: &ConfigPath, rule: Rule<'s>) -> ValidationError<'s> {
    ValidationError {
        path: path.clone(),
        schema,
        rule,
    }
}

fn compile_patterns<'s>(
    schema: &'s Value,
    patterns: &mut HashMap<&'s str, Regex>,
) -> Result<(), regex::Error> {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        patterns.insert(pattern, Regex::new(pattern)?);
    }
    match schema {
        Value::Object(members) => members
            .values()
            .try_for_each(|member| compile_patterns(member, patterns)),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| compile_patterns(item, patterns)),
        _ => Ok(()),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        Value::Number(number) => name == "number" || (name == "integer" && is_whole(number)),
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

fn is_whole(number: &Number) -> bool {
    number.as_f64().is_some_and(|value| value.fract() == 0.0)
}

/// Compares integers exactly, which `f64` cannot above 2^53.
fn compare(number: &Number, limit: &Value) -> Option<Ordering> {
    match (number.as_i128(), limit.as_number()?.as_i128()) {
        (Some(number), Some(limit)) => Some(number.cmp(&limit)),
        _ => number.as_f64()?.partial_cmp(&limit.as_f64()?),
    }
}

fn array(argument: &Value) -> &[Value] {
    argument.as_array().map_or(&[], Vec::as_slice)
}

/// The strings of a keyword that takes one or several.
fn strings(argument: &Value) -> Vec<&str> {
    match argument {
        Value::String(word) => vec![word],
        several => array(several).iter().filter_map(Value::as_str).collect(),
    }
}

#[cfg(test)]
mod tests;
