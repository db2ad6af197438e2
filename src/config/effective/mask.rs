//! Texts as they are shown: without secrets, and so that they are valid input.

use std::path::PathBuf;

use serde_json::Value;

use crate::config::document::{ConfigPath, SourceMap};
use crate::config::environment::escape;
use crate::config::schema::{is_secret, resolve_ref, schema, subschema};

/// Stands for a secret that is written in the file.
const MASKED: &str = "${MASKED}";

/// Decides how texts are shown.
pub(super) struct Masks<'a> {
    schema: Value,
    source_map: &'a SourceMap,
    paths: &'a [(ConfigPath, PathBuf)],
}

impl<'a> Masks<'a> {
    pub(super) fn new(source_map: &'a SourceMap, paths: &'a [(ConfigPath, PathBuf)]) -> Masks<'a> {
        Masks {
            schema: schema(),
            source_map,
            paths,
        }
    }

    /// Returns the text to show for the value at this path. A text that a variable is set to may be a
    /// secret, whatever it is used for.
    pub(super) fn show(&self, text: &str, location: &ConfigPath) -> String {
        let is_secret = is_secret(&self.schema, location);
        if let Some(variables) = self.source_map.variables(location)
            && (is_secret || self.is_free_text(location) && !variables.only_defaults)
        {
            return mask_password(&variables.reference);
        }
        if is_secret {
            return MASKED.to_owned();
        }
        let mut paths = self.paths.iter();
        match paths.find(|(at, _)| at == location && !text.contains("://")) {
            Some((_, path)) => {
                // The path may be relative to the file that contains it, whose text is moved.
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                escape(&path.to_string_lossy())
            }
            None => mask_password(&escape(text)),
        }
    }

    /// Whether every text is a valid value, so that it may contain a secret.
    fn is_free_text(&self, location: &ConfigPath) -> bool {
        let part = resolve_ref(&self.schema, subschema(&self.schema, location));
        let alternatives = part.get("anyOf").and_then(Value::as_array);
        let mut all = alternatives.into_iter().flatten().chain([part]);
        all.any(|part| {
            let part = resolve_ref(&self.schema, part);
            let has = |keyword| part.get(keyword).is_some();
            let types = part.get("type");
            let is_text = types.is_some_and(|types| match types {
                Value::Array(types) => types.iter().any(|name| name == "string"),
                name => name == "string",
            });
            is_text && !has("enum") && !has("pattern")
        })
    }
}

/// Replaces the password in a URL, unless it is a reference to a variable.
fn mask_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let Some((credentials, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    match credentials.split_once(':') {
        Some((user, password)) if !is_reference(password) => {
            format!("{scheme}://{user}:{MASKED}@{host}{path}")
        }
        _ => text.to_owned(),
    }
}

fn is_reference(text: &str) -> bool {
    let name = text
        .strip_prefix("${")
        .and_then(|text| text.strip_suffix('}'));
    name.is_some_and(|name| !name.contains(['$', '{', '}']))
}
