//! Substitution of `${NAME}` and `${NAME:-default}` in values, before they are interpreted.

use super::diagnostics::{Diagnostic, Position};
use super::yaml::{NodeKind, Scalar, YamlNode};

/// Substitutes every variable in the tree's values, with `look_up` as the environment.
/// `$$` is a dollar sign. An unset variable without a default is an error.
pub(super) fn substitute(
    node: &mut YamlNode,
    look_up: &dyn Fn(&str) -> Option<String>,
    errors: &mut Vec<Diagnostic>,
) {
    match &mut node.kind {
        NodeKind::Scalar(scalar) => substitute_scalar(scalar, node.position, look_up, errors),
        NodeKind::List(items) => {
            for item in items {
                substitute(item, look_up, errors);
            }
        }
        NodeKind::Map(entries) => {
            for entry in entries {
                substitute(&mut entry.value, look_up, errors);
            }
        }
    }
}

fn substitute_scalar(
    scalar: &mut Scalar,
    position: Position,
    look_up: &dyn Fn(&str) -> Option<String>,
    errors: &mut Vec<Diagnostic>,
) {
    if !scalar.text.contains('$') {
        return;
    }
    match expand(&scalar.text, look_up) {
        Ok((text, from_environment)) => {
            scalar.text = text;
            scalar.from_environment = from_environment;
        }
        Err(message) => {
            scalar.unresolved = true;
            errors.push(Diagnostic { position, message });
        }
    }
}

/// Returns the text with its variables replaced, and whether it had any.
fn expand(text: &str, look_up: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool), String> {
    let mut result = String::with_capacity(text.len());
    let mut replaced = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some(braced) = after.strip_prefix('{') {
            let (reference, after) = braced
                .split_once('}')
                .ok_or("\"${\" has no closing brace; write $$ for a dollar sign")?;
            result.push_str(&expand_reference(reference, look_up)?);
            replaced = true;
            rest = after;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    Ok((result, replaced))
}

fn expand_reference(
    reference: &str,
    look_up: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let is_valid_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_valid_name {
        return Err(
            "\"${\" must be followed by the name of an environment variable and \"}\"; \
                    write $$ for a dollar sign"
                .to_owned(),
        );
    }
    match (look_up(name), default) {
        // As in a shell, the default of `:-` also replaces an empty value.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set, and \"${{{name}}}\" has no default"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let look_up = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        match (expand(text, &look_up), expected) {
            (Ok((result, _)), Ok(expected)) => assert_eq!(result, expected, "{text}"),
            (Err(result), Err(expected)) => assert!(result.contains(expected), "{text}: {result}"),
            (result, _) => assert_eq!(
                result.map(|(text, _)| text),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            ),
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
    fn unresolved_variable_is_reported() {
        check("${UNSET}", Err("variable UNSET is not set"));
        check("${SET", Err("no closing brace"));
        check("${}", Err("name of an environment variable"));
        check("${A B}", Err("name of an environment variable"));
        check("${SET-x}", Err("name of an environment variable"));
    }
}
