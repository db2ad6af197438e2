//! Conversion of the YAML tree to JSON, for schema validation and deserialization, with the source
//! position of every value.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::diagnostics::Position;
use super::environment::Variables;
use super::yaml::{NodeKind, Scalar, YamlNode};

/// A JSON pointer (RFC 6901) into the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ConfigPath(String);

impl ConfigPath {
    /// The root of the file.
    pub(super) fn root() -> ConfigPath {
        ConfigPath(String::new())
    }

    /// The path of a key of this mapping.
    pub(super) fn key(&self, key: &str) -> ConfigPath {
        let key = key.replace('~', "~0").replace('/', "~1");
        ConfigPath(format!("{}/{key}", self.0))
    }

    /// The path of an item of this list.
    pub(super) fn item(&self, index: usize) -> ConfigPath {
        ConfigPath(format!("{}/{index}", self.0))
    }

    /// The path of the enclosing mapping or list.
    pub(super) fn parent(&self) -> Option<ConfigPath> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| ConfigPath(parent.to_owned()))
    }

    /// The last key or index.
    pub(super) fn last(&self) -> Option<String> {
        let (_, last) = self.0.rsplit_once('/')?;
        Some(last.replace("~1", "/").replace("~0", "~"))
    }

    /// Whether this path is `other` or inside it.
    pub(super) fn is_within(&self, other: &ConfigPath) -> bool {
        self.0
            .strip_prefix(&other.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path as a JSON pointer.
    pub(super) fn pointer(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConfigPath {
    /// Writes the path in the form `routes[0].upstream`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.split('/').skip(1).enumerate() {
            let part = part.replace("~1", "/").replace("~0", "~");
            if part.bytes().all(|byte| byte.is_ascii_digit()) {
                write!(f, "[{part}]")?;
            } else {
                write!(f, "{}{part}", if index > 0 { "." } else { "" })?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SourceEntry {
    key: Option<Position>,
    value: Position,
    variables: Option<Arc<Variables>>,
}

/// Source position of every value.
#[derive(Debug, Default)]
pub(super) struct SourceMap(HashMap<ConfigPath, SourceEntry>);

impl SourceMap {
    /// Returns the position of a value. For a value that is not in the file, this is the position
    /// of the nearest enclosing one, to which it would have to be added.
    pub(super) fn value_position(&self, location: &ConfigPath) -> Position {
        match self.0.get(location) {
            Some(entry) => entry.value,
            None => self.nearest_position(location),
        }
    }

    /// Returns the position of the key, or else of the value.
    pub(super) fn key_position(&self, location: &ConfigPath) -> Position {
        match self.0.get(location) {
            Some(entry) => entry.key.unwrap_or(entry.value),
            None => self.nearest_position(location),
        }
    }

    /// Whether the file has a value at this path.
    pub(super) fn contains(&self, location: &ConfigPath) -> bool {
        self.0.contains_key(location)
    }

    /// Returns the environment variables that the value refers to.
    pub(super) fn variables(&self, location: &ConfigPath) -> Option<&Variables> {
        self.0.get(location)?.variables.as_deref()
    }

    /// Whether the value contains text from the environment.
    pub(super) fn is_from_environment(&self, location: &ConfigPath) -> bool {
        self.variables(location).is_some()
    }

    /// Returns the end of a message about a value from the environment; empty for another one.
    pub(super) fn environment_note(&self, location: &ConfigPath) -> String {
        self.variables(location)
            .map_or_else(String::new, |variables| {
                format!(" (the value of {variables})")
            })
    }

    /// Whether the value refers to an unset variable.
    pub(super) fn is_unresolved(&self, location: &ConfigPath) -> bool {
        self.variables(location).is_some_and(|it| it.unresolved)
    }

    /// Returns the values that refer to environment variables.
    pub(super) fn with_variables(&self) -> impl Iterator<Item = (&ConfigPath, &Variables)> {
        let entries = self.0.iter();
        entries.filter_map(|(location, entry)| Some((location, entry.variables.as_deref()?)))
    }

    /// Returns the values that refer to unset variables.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &ConfigPath> {
        let unresolved = self.with_variables().filter(|(_, it)| it.unresolved);
        unresolved.map(|(location, _)| location)
    }

    fn nearest_position(&self, location: &ConfigPath) -> Position {
        let mut location = location.clone();
        while let Some(parent) = location.parent() {
            if let Some(entry) = self.0.get(&parent) {
                return entry.key.unwrap_or(entry.value);
            }
            location = parent;
        }
        Position::START
    }
}

/// Converts the tree to a JSON value and its source map.
pub(super) fn to_json(root: &YamlNode) -> (Value, SourceMap) {
    let mut source_map = SourceMap::default();
    let value = convert_node(root, None, ConfigPath::root(), &mut source_map);
    (value, source_map)
}

fn convert_node(
    node: &YamlNode,
    key: Option<Position>,
    location: ConfigPath,
    source_map: &mut SourceMap,
) -> Value {
    let mut variables = None;
    let value = match &node.kind {
        NodeKind::Scalar(scalar) => {
            variables.clone_from(&scalar.variables);
            resolve_scalar(scalar)
        }
        NodeKind::List(items) => {
            let items = items.iter().enumerate();
            let list = items
                .map(|(index, item)| convert_node(item, None, location.item(index), source_map));
            Value::Array(list.collect())
        }
        NodeKind::Map(entries) => {
            let pairs = entries.iter().map(|entry| {
                let value = convert_node(
                    &entry.value,
                    Some(entry.key_position),
                    location.key(&entry.key),
                    source_map,
                );
                (entry.key.clone(), value)
            });
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    };
    let entry = SourceEntry {
        key,
        value: node.position,
        variables,
    };
    source_map.0.insert(location, entry);
    value
}

/// Interprets a scalar; a plain one by the core schema of YAML 1.2 (section 10.3.2).
pub(super) fn resolve_scalar(scalar: &Scalar) -> Value {
    let text = scalar.text.as_str();
    if !scalar.plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    parse_number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn parse_number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(Number::from);
        }
    }
    let decimal = text.strip_prefix('+').unwrap_or(text);
    if let Ok(whole) = decimal.parse::<u64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = decimal.parse::<i64>() {
        return Some(whole.into());
    }
    let fraction = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if !fraction {
        return None;
    }
    let value: f64 = decimal.parse().ok()?;
    // A whole number is an integer in every notation.
    let whole = value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value);
    if whole {
        Some(Number::from(value as u64))
    } else {
        Number::from_f64(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        for (text, expected) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("true", json!(true)),
            ("off", json!("off")),
            ("yes", json!("yes")),
            ("12", json!(12)),
            ("-3", json!(-3)),
            ("+3", json!(3)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("15m", json!("15m")),
            ("127.0.0.1", json!("127.0.0.1")),
            ("127.0.0.1:8080", json!("127.0.0.1:8080")),
            ("1-2", json!("1-2")),
            (".", json!(".")),
        ] {
            let scalar = Scalar {
                text: text.to_owned(),
                plain: true,
                ..Scalar::default()
            };
            assert_eq!(resolve_scalar(&scalar), expected, "{text:?}");
            let quoted = Scalar {
                plain: false,
                ..scalar
            };
            assert_eq!(resolve_scalar(&quoted), json!(text));
        }
    }

    #[test]
    fn path_is_displayed_with_dots_and_indices() {
        let location = ConfigPath::root().key("routes").item(0).key("a/b~c");
        assert_eq!(location.pointer(), "/routes/0/a~1b~0c");
        assert_eq!(location.to_string(), "routes[0].a/b~c");
        assert_eq!(location.last().as_deref(), Some("a/b~c"));
        assert!(location.is_within(&ConfigPath::root().key("routes")));
        assert!(!location.is_within(&ConfigPath::root().key("route")));
    }
}
