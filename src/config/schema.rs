//! JSON Schema of the configuration file, generated from the types that deserialize it.

use schemars::schema_for;
use serde_json::Value;

use super::document::ConfigPath;
use super::file::File;

/// Returns the JSON Schema (2020-12) of the configuration file.
pub fn schema() -> Value {
    let mut schema = schema_for!(File).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), "Portcullis configuration".into());
    }
    schema
}

/// Follows a `$ref` into the definitions of the schema.
pub(super) fn resolve_ref<'a>(root: &'a Value, part: &'a Value) -> &'a Value {
    let target = part.get("$ref").and_then(Value::as_str);
    target
        .and_then(|target| root.pointer(target.trim_start_matches('#')))
        .unwrap_or(part)
}

/// Selects the alternative that is a mapping, or else the first one.
pub(super) fn non_null_schema<'a>(root: &'a Value, part: &'a Value) -> &'a Value {
    let part = resolve_ref(root, part);
    let Some(branches) = part.get("anyOf").and_then(Value::as_array) else {
        return part;
    };
    let resolved = || branches.iter().map(|branch| resolve_ref(root, branch));
    let mapping = resolved().find(|branch| branch.get("properties").is_some());
    mapping.or_else(|| resolved().next()).unwrap_or(part)
}

/// Returns the subschema of a value; `Value::Null` for an unknown key.
pub(super) fn subschema<'a>(root: &'a Value, path: &ConfigPath) -> &'a Value {
    let Some((parent, last)) = path.parent().zip(path.last()) else {
        return root;
    };
    let parent = non_null_schema(root, subschema(root, &parent));
    let property = parent.get("properties").and_then(|all| all.get(&last));
    let element = || parent.get("items").or(parent.get("additionalProperties"));
    property.or_else(element).unwrap_or(&Value::Null)
}

/// Whether the value at this path is a secret, by its type or as a header that may have a credential.
pub(super) fn is_secret(root: &Value, path: &ConfigPath) -> bool {
    if is_credential_header(path) || is_matched_header(path) {
        return true;
    }
    let part = subschema(root, path);
    let alternatives = resolve_ref(root, part).get("anyOf");
    let alternatives = alternatives.and_then(Value::as_array);
    let mut all = alternatives.into_iter().flatten().chain([part]);
    all.any(|part| part.get("$ref").and_then(Value::as_str) == Some("#/$defs/Secret"))
}

/// Whether this is a header on which a route matches. Its value may be a secret that a proxy in front adds.
pub(super) fn is_matched_header(location: &ConfigPath) -> bool {
    let parent = location.parent();
    parent.is_some_and(|parent| parent.pointer().ends_with("/match/headers"))
}

/// Whether this is a header to set whose name shows that it has a credential.
fn is_credential_header(location: &ConfigPath) -> bool {
    let Some((parent, name)) = location.parent().zip(location.last()) else {
        return false;
    };
    let name = name.to_ascii_lowercase();
    let words = ["auth", "cookie", "key", "password", "secret", "token"];
    parent.pointer().ends_with("_headers/set") && words.iter().any(|word| name.contains(word))
}
