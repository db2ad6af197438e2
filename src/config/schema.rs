//! JSON Schema of the configuration file, generated from the types that deserialize it.

use schemars::schema_for;
use serde_json::Value;

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
