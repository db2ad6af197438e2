//! Substitution of `${NAME}` and `${NAME:-default}` in values, before they are interpreted.

use std::fmt;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Position};
use super::document::ConfigPath;
use super::yaml::{NodeKind, Scalar, YamlNode};

/// Returns the value of an environment variable.
pub(super) type LookUp<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment variables that a scalar refers to. Messages name them, and never the value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variables {
    names: Vec<String>,
    /// The scalar as written, without the defaults of its variables.
    pub(super) reference: String,
    /// Whether the value consists of defaults, none of its variables being set.
    pub(super) only_defaults: bool,
    /// Whether the value is unknown, because a variable is unset.
    pub(super) unresolved: bool,
}

impl fmt::Display for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names.iter().enumerate() {
            write!(f, "{}${{{name}}}", if index > 0 { " and " } else { "" })?;
        }
        Ok(())
    }
}

/// A variable that is unset and has no default.
#[derive(Debug)]
pub(super) struct UnsetVariable {
    /// The value that refers to the variable.
    pub(super) path: ConfigPath,
    pub(super) position: Position,
    pub(super) name: String,
    /// Whether it stands for the user or the password in a URL, which can be checked without it.
    pub(super) in_credentials: bool,
}

impl UnsetVariable {
    /// The message of the error.
    pub(super) fn message(&self) -> String {
        let name = &self.name;
        format!("the environment variable {name} is not set, and \"${{{name}}}\" has no default")
    }
}

/// Substitutes variables, and collects those that are unset and the mistakes in references.
pub(super) struct Substitution<'a> {
    pub(super) look_up: LookUp<'a>,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) unset: Vec<UnsetVariable>,
}

impl<'a> Substitution<'a> {
    pub(super) fn new(look_up: LookUp<'a>) -> Substitution<'a> {
        Substitution {
            look_up,
            errors: Vec::new(),
            unset: Vec::new(),
        }
    }

    /// Substitutes every variable in the values of the tree. `$$` is a dollar sign.
    pub(super) fn substitute(&mut self, node: &mut YamlNode, path: &ConfigPath) {
        match &mut node.kind {
            NodeKind::Scalar(scalar) => self.substitute_scalar(scalar, node.position, path),
            NodeKind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.substitute(item, &path.item(index));
                }
            }
            NodeKind::Map(entries) => {
                for entry in entries {
                    self.substitute(&mut entry.value, &path.key(&entry.key));
                }
            }
        }
    }

    fn substitute_scalar(&mut self, scalar: &mut Scalar, position: Position, path: &ConfigPath) {
        if !scalar.text.contains('$') {
            return;
        }
        let Expansion {
            text,
            variables,
            unset,
        } = match expand(&scalar.text, self.look_up) {
            Ok(expansion) => expansion,
            Err(message) => {
                let message = message.to_owned();
                self.errors.push(Diagnostic { position, message });
                scalar.variables = Some(Arc::new(Variables::unknown(&scalar.text)));
                return;
            }
        };
        if !variables.unresolved {
            scalar.text = text;
        }
        if !variables.names.is_empty() {
            scalar.variables = Some(Arc::new(variables));
        }
        let unset = unset
            .into_iter()
            .map(|(name, in_credentials)| UnsetVariable {
                path: path.clone(),
                position,
                name,
                in_credentials,
            });
        self.unset.extend(unset);
    }
}

impl Variables {
    fn unknown(text: &str) -> Variables {
        Variables {
            names: Vec::new(),
            reference: text.to_owned(),
            only_defaults: true,
            unresolved: true,
        }
    }
}

/// A text with its variables replaced.
struct Expansion {
    text: String,
    variables: Variables,
    /// The unset variables, and whether each is among the credentials of a URL.
    unset: Vec<(String, bool)>,
}

fn expand(text: &str, look_up: LookUp<'_>) -> Result<Expansion, &'static str> {
    let mut expansion = Expansion {
        text: String::with_capacity(text.len()),
        variables: Variables {
            unresolved: false,
            ..Variables::unknown("")
        },
        unset: Vec::new(),
    };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expansion.push_literal(before);
        if let Some(after) = after.strip_prefix('$') {
            expansion.push_literal("$");
            rest = after;
        } else if let Some(braced) = after.strip_prefix('{') {
            let (reference, after) = braced
                .split_once('}')
                .ok_or("\"${\" has no closing brace; write $$ for a dollar sign")?;
            expansion.push_reference(reference, after, look_up)?;
            rest = after;
        } else {
            expansion.push_literal("$");
            rest = after;
        }
    }
    expansion.push_literal(rest);
    Ok(expansion)
}

impl Expansion {
    fn push_literal(&mut self, text: &str) {
        self.text.push_str(text);
        self.variables.reference.push_str(&escape(text));
    }

    fn push_reference(
        &mut self,
        reference: &str,
        after: &str,
        look_up: LookUp<'_>,
    ) -> Result<(), &'static str> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let is_valid_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_valid_name {
            return Err(
                "\"${\" must be followed by the name of an environment variable and \"}\"; \
                 write $$ for a dollar sign",
            );
        }
        match (look_up(name), default) {
            // As in a shell, the default of `:-` also replaces an empty value.
            (Some(value), Some(default)) if value.is_empty() => self.text.push_str(default),
            (Some(value), _) => {
                self.variables.only_defaults = false;
                self.text.push_str(&value);
            }
            (None, Some(default)) => self.text.push_str(default),
            (None, None) => {
                let in_credentials = is_in_credentials(&self.text, after);
                self.variables.only_defaults = false;
                self.variables.unresolved |= !in_credentials;
                self.text.push_str("unset");
                self.unset.push((name.to_owned(), in_credentials));
            }
        }
        self.variables.names.push(name.to_owned());
        self.variables.reference += &format!("${{{name}}}");
        Ok(())
    }
}

/// Whether what stands between the two texts is in the user or the password of a URL.
fn is_in_credentials(before: &str, after: &str) -> bool {
    let is_authority = |text: &str| !text.contains(['/', '@', '?', '#']);
    let starts = before
        .split_once("://")
        .is_some_and(|(_, authority)| is_authority(authority));
    let ends = after
        .split_once('@')
        .is_some_and(|(credentials, _)| is_authority(credentials));
    starts && ends
}

/// Writes a text so that its substitution is the text again.
pub(super) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn check(text: &str, expected: Result<&str, &str>) {
        let result = expand(text, &environment);
        match (result, expected) {
            (Ok(expansion), Ok(expected)) => assert_eq!(expansion.text, expected, "{text}"),
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{message}"),
            (result, _) => panic!("{text}: {:?}", result.map(|expansion| expansion.text)),
        }
    }

    #[test]
    fn variables_are_replaced() {
        check("a${SET}b${SET}", Ok("avaluebvalue"));
        check("${UNSET:-other}", Ok("other"));
        check("${EMPTY:-other}", Ok("other"));
        check("${UNSET:-}", Ok(""));
        check("${EMPTY}", Ok(""));
        check("${SET:-other}", Ok("value"));
        check("100$", Ok("100$"));
        check("$HOME", Ok("$HOME"));
        check("$${SET}", Ok("${SET}"));
        check("$$$${SET", Ok("$${SET"));
    }

    #[test]
    fn malformed_reference_is_reported() {
        check("${SET", Err("no closing brace"));
        check("${}", Err("name of an environment variable"));
        check("${A B}", Err("name of an environment variable"));
        check("${SET-x}", Err("name of an environment variable"));
    }

    #[test]
    fn unset_variable_is_unresolved_except_in_credentials() {
        for (text, in_credentials) in [
            ("${UNSET}", false),
            ("redis://${UNSET}:6379", false),
            ("redis://:${UNSET}@host", true),
            ("postgres://${SET}:${UNSET}@host/db", true),
            ("postgres://app:${UNSET}@${SET}/db", true),
            ("postgres://host/${UNSET}@x", false),
            ("http://host?a=${UNSET}@x", false),
            ("${UNSET}@host", false),
        ] {
            let expansion = expand(text, &environment).unwrap();
            let expected = vec![("UNSET".to_owned(), in_credentials)];
            assert_eq!(expansion.unset, expected, "{text}");
            assert_eq!(expansion.variables.unresolved, !in_credentials, "{text}");
        }
    }

    #[test]
    fn reference_has_neither_values_nor_defaults() {
        let expansion = expand("a$$b ${SET:-x} ${UNSET:-y}", &environment).unwrap();
        assert_eq!(expansion.variables.reference, "a$$b ${SET} ${UNSET}");
        assert_eq!(expansion.variables.to_string(), "${SET} and ${UNSET}");
        assert!(!expansion.variables.only_defaults);
        let expansion = expand("${UNSET:-y}", &environment).unwrap();
        assert!(expansion.variables.only_defaults);
    }
}
