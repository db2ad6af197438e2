//! The reference page, `docs/configuration.md`, made from the schema.

use std::fmt::Write;

use serde_json::Value;

use super::schema::{resolve_ref, schema};

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `portcullis schema --format markdown`. Change the descriptions in `src/config/file`. -->

The file is YAML. `portcullis check --config FILE` tells every mistake in it, one a line, as
`FILE:LINE:COLUMN: message`. `portcullis schema` prints its JSON Schema, for editors. Unknown keys
are mistakes. Required are `listeners`, `upstreams`, `routes`, and `tokens.signing` unless `api` is
`null` and every token comes from `tokens.trusted_issuers`. `config/portcullis.yaml` is a small
example that runs as it is; `config/portcullis.full.yaml` has every key.

**Environment.** `${NAME}` and `${NAME:-default}` in a value are replaced from the environment
before the value is read. A variable that is not set and has no default is a mistake. `:-` also
stands in for a variable that is empty. `$$` is a dollar sign.

**Secrets.** Where `x` is a secret, `x_file` may name a file that holds it; one line end at the end
of that file is taken off. An empty secret is a mistake. Relative paths are relative to the
configuration file, but for the database's, which is relative to the working directory. Files are
re-read when they change.

**Durations** are a whole number and `ms`, `s`, `m`, `h` or `d`. **Sizes** are a whole number and
`B`, `KiB`, `MiB` or `GiB`.

**Request headers that cannot be edited** by `request_headers`, because the gateway vouches for
them: those of `identity_headers`, `X-Portcullis-*`, `X-Forwarded-*`, `Forwarded`, `X-Real-IP`,
`X-Request-ID`, `Host`, `traceparent` and `tracestate`; in all of them every character
other than a letter or digit counts as `-`. Nor can those that belong to the connection, in either direction: `Connection`, `Content-Length`,
`Keep-Alive`, `Proxy-Authenticate`, `Proxy-Authorization`, `Proxy-Connection`, `TE`, `Trailer`,
`Transfer-Encoding` and `Upgrade`. `Authorization` and `Cookie` can be set, for an upstream that
wants a credential of its own.

**Limits that count by a header** are refused on a route that has no limit with the key `ip` beside
them: a client can change a header at will.
";

/// The sections in the order in which a file usually has them.
const SECTIONS: [&str; 14] = [
    "listeners",
    "admin",
    "store",
    "database",
    "tokens",
    "sessions",
    "identity",
    "api",
    "hsts",
    "identity_headers",
    "limits",
    "upstreams",
    "routes",
    "shutdown",
];

/// The reference of every key, as Markdown.
pub fn reference() -> String {
    let schema = schema();
    let mut page = INTRODUCTION.to_owned();
    for name in SECTIONS {
        let property = schema
            .pointer(&format!("/properties/{name}"))
            .unwrap_or(&Value::Null);
        let _ = write!(page, "\n## {name}\n");
        if let Some(text) = description(&schema, property) {
            let _ = write!(page, "\n{text}\n");
        }
        let (path, inner) = element_schema(&schema, name.to_owned(), property);
        let _ = write!(
            page,
            "\n| key | is | default |  |\n| --- | --- | --- | --- |\n"
        );
        write_rows(&schema, &path, inner, &Value::Null, &mut page);
    }
    page
}

/// Goes into a list or a mapping of named things.
fn element_schema<'a>(root: &'a Value, path: String, part: &'a Value) -> (String, &'a Value) {
    let part = non_null_schema(root, part);
    if let Some(item) = part.get("items") {
        return (format!("{path}[]"), non_null_schema(root, item));
    }
    match part.get("additionalProperties") {
        Some(value @ Value::Object(_)) => (format!("{path}.NAME"), non_null_schema(root, value)),
        _ => (path, part),
    }
}

/// The one shape that is a mapping, of those that a value may have; else the first.
fn non_null_schema<'a>(root: &'a Value, part: &'a Value) -> &'a Value {
    let part = resolve_ref(root, part);
    let Some(branches) = part.get("anyOf").and_then(Value::as_array) else {
        return part;
    };
    let resolved = || branches.iter().map(|branch| resolve_ref(root, branch));
    let mapping = resolved().find(|branch| branch.get("properties").is_some());
    mapping.or_else(|| resolved().next()).unwrap_or(part)
}

fn write_rows(root: &Value, path: &str, part: &Value, defaults: &Value, page: &mut String) {
    let Some(properties) = part.get("properties").and_then(Value::as_object) else {
        return;
    };
    let required = part.get("required").and_then(Value::as_array);
    for (name, property) in properties {
        let default = defaults.get(name).or_else(|| property.get("default"));
        let needed = required.is_some_and(|all| all.iter().any(|one| one == name.as_str()));
        let (inner_path, inner) = element_schema(root, format!("{path}.{name}"), property);
        let nested = inner.get("properties").is_some();
        let shown = match default {
            _ if needed => "required".to_owned(),
            Some(Value::Object(_)) if nested => String::new(),
            Some(default) => format!("`{default}`"),
            None => String::new(),
        };
        let text = description(root, property)
            .unwrap_or_default()
            .replace('\n', " ");
        let kind = describe_type(root, property).replace('|', "\\|");
        let _ = writeln!(page, "| `{path}.{name}` | {kind} | {shown} | {text} |");
        if nested {
            write_rows(
                root,
                &inner_path,
                inner,
                default.unwrap_or(&Value::Null),
                page,
            );
        }
    }
}

fn description<'a>(root: &'a Value, property: &'a Value) -> Option<&'a str> {
    let own = property.get("description");
    let text = own.or_else(|| non_null_schema(root, property).get("description"));
    text.and_then(Value::as_str)
}

/// What a value may be, in few words.
fn describe_type(root: &Value, part: &Value) -> String {
    let part = resolve_ref(root, part);
    if let Some(branches) = part.get("anyOf").and_then(Value::as_array) {
        let kinds: Vec<String> = branches
            .iter()
            .map(|branch| describe_type(root, branch))
            .collect();
        return kinds.join(" or ");
    }
    if let Some(words) = part.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("`{}`", unquoted(word)))
            .collect();
        return words.join(", ");
    }
    if part.get("patternErrorMessage").is_some() {
        let first = part
            .pointer("/examples/0")
            .map(unquoted)
            .unwrap_or_default();
        return format!("like `{first}`");
    }
    let of_type = part.get("type");
    match of_type.and_then(Value::as_str) {
        Some("array") => match part.get("items") {
            Some(item) => format!("list of {}", describe_type(root, item)),
            None => "list".to_owned(),
        },
        Some("string") => "text".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("null") => "`null`".to_owned(),
        Some(_) => "mapping".to_owned(),
        None => match of_type.and_then(Value::as_array) {
            Some(several) => {
                let kinds = several
                    .iter()
                    .map(|one| describe_type(root, &serde_json::json!({"type": one})));
                kinds.collect::<Vec<_>>().join(" or ")
            }
            None => "anything".to_owned(),
        },
    }
}

fn unquoted(word: &Value) -> String {
    word.as_str()
        .map_or_else(|| word.to_string(), str::to_owned)
}
