//! The OpenAPI 3.1 description of the endpoints: the handlers' annotations, completed with what all
//! operations share.

use std::iter;
use std::sync::Arc;
use std::sync::LazyLock;

use axum::extract::Extension;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{response, routes};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Refusal;
use crate::routing::endpoints::{CredentialUse, ENDPOINTS, OfferedEndpoints};
use crate::settings::IdentitySource;

/// Schemas of request bodies.
const REQUEST_BODIES: [&str; 10] = [
    "Registration",
    "Login",
    "Refresh",
    "SignOut",
    "ProfileChange",
    "NewPassword",
    "DeviceChange",
    "NewApiKey",
    "ApiKeyChange",
    "ApiKeyRotation",
];
const PRINTABLE_PATTERN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The description without the configured parts.
static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    let described = routes().split_for_parts().1;
    // Serialization cannot fail: the value holds only strings, numbers and lists.
    complete_description(serde_json::to_value(described).unwrap_or_default())
});

/// The description, independent of the configuration.
pub(super) fn description() -> &'static Value {
    &DESCRIPTION
}

/// Get this description
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "gateway",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
pub(super) async fn show(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    let settings = &snapshot.settings;
    let mut description = description().clone();
    let least = settings.identity.passwords.min_length;
    for password in [
        "Registration/properties/password",
        "NewPassword/properties/new_password",
    ] {
        let place = format!("/components/schemas/{password}/minLength");
        set_pointer(&mut description, &place, least.into());
    }
    let password = example_password(least);
    for place in [
        "Registration/example/password",
        "Login/example/password",
        "NewPassword/example/current_password",
    ] {
        let place = format!("/components/schemas/{place}");
        set_pointer(&mut description, &place, password.as_str().into());
    }
    let place = "/components/schemas/NewPassword/example/new_password";
    set_pointer(
        &mut description,
        place,
        format!("another {password}").into(),
    );
    if let Some(api) = &settings.api {
        set_pointer(&mut description, "/servers", json!([{"url": api.prefix}]));
        remove_missing_endpoints(&mut description, api.offered);
        if let IdentitySource::Backend(_) = &settings.identity.source {
            document_backend_errors(&mut description);
        }
    }
    let scheme = json!({"type": "apiKey", "in": "cookie", "name": settings.sessions.cookie.name});
    set_pointer(
        &mut description,
        "/components/securitySchemes/cookie",
        scheme,
    );
    response::json(StatusCode::OK, &description)
}

/// Builds an example password that satisfies the minimum length.
fn example_password(least: usize) -> String {
    let words = ["correct", "horse", "battery", "staple"];
    let mut password = String::new();
    for word in words.iter().cycle() {
        if password.len() >= least.max(21) {
            break;
        }
        if !password.is_empty() {
            password.push(' ');
        }
        password.push_str(word);
    }
    password
}

/// Removes the endpoints that this configuration does not have.
fn remove_missing_endpoints(description: &mut Value, offered: OfferedEndpoints) {
    let paths = description.get_mut("paths").and_then(Value::as_object_mut);
    let Some(paths) = paths else { return };
    let is_missing = |path: &str| {
        let mut endpoints = ENDPOINTS.iter();
        endpoints.any(|endpoint| endpoint.path == path && !offered.includes(endpoint.kind))
    };
    paths.retain(|path, _| !is_missing(path));
}

/// Documents the errors of a backend that checks passwords.
fn document_backend_errors(description: &mut Value) {
    let paths = description.get_mut("paths").and_then(Value::as_object_mut);
    let Some(paths) = paths else { return };
    for path in ["/auth/login", "/auth/signin"] {
        let operation = paths.get_mut(path).and_then(|path| path.get_mut("post"));
        let Some(operation) = operation else { continue };
        for (status, meaning) in [
            ("502", "The backend is unreachable or returned no user"),
            ("504", "The backend did not respond in time"),
        ] {
            let response = json!({"description": meaning, "content": refusal_content()});
            set_pointer(operation, &format!("/responses/{status}"), response);
        }
    }
}

/// Returns the credentials that an operation accepts, as OpenAPI lists them.
fn security(credential: CredentialUse) -> Value {
    let any = [
        json!({"bearer": []}),
        json!({"session": []}),
        json!({"cookie": []}),
    ];
    match credential {
        CredentialUse::Ignored => json!([{}]),
        CredentialUse::Optional => iter::once(json!({})).chain(any).collect(),
        CredentialUse::Required => any.into_iter().collect(),
        CredentialUse::ApiKey => json!([{"bearer": []}, {"basic": []}]),
    }
}

/// Looks up in the endpoint table how an operation uses credentials.
fn credential_use(method: &str, path: &str) -> CredentialUse {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok();
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.path == path);
    endpoint
        .zip(method)
        .and_then(|(endpoint, method)| endpoint.credential_use(&method))
        .unwrap_or(CredentialUse::Required)
}

fn complete_description(mut description: Value) -> Value {
    let info = json!({
        "title": "Portcullis",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Sessions and identity. A success is `{\"success\": true, \"data\": …}`; \
                        an error has one shape, with a stable `code`.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    });
    set_pointer(&mut description, "/info", info);
    set_pointer(
        &mut description,
        "/components/schemas/Refusal",
        refusal_schema(),
    );
    restrict_strings(&mut description);
    set_pointer(
        &mut description,
        "/components/schemas/Login/anyOf",
        login_name_schema(),
    );
    set_pointer(
        &mut description,
        "/components/schemas/Problem",
        problem_schema(),
    );
    set_pointer(
        &mut description,
        "/components/securitySchemes",
        security_schemes(),
    );
    let paths = description.get_mut("paths").and_then(Value::as_object_mut);
    for (path, operations) in paths.into_iter().flatten() {
        let operations = operations.as_object_mut();
        for (method, operation) in operations.into_iter().flatten() {
            let id = format!("{method}{path}").replace(['/', '.'], "_");
            set_pointer(operation, "/operationId", id.replace(['{', '}'], "").into());
            complete_operation(method, credential_use(method, path), operation);
        }
    }
    description
}

/// Adds the pattern that [`BodyFields`](super::body::BodyFields) enforces to every string of a
/// request body: no control characters.
fn restrict_strings(description: &mut Value) {
    for body in REQUEST_BODIES {
        let members = description.pointer_mut(&format!("/components/schemas/{body}/properties"));
        let members = members.and_then(Value::as_object_mut);
        for member in members.into_iter().flat_map(Map::values_mut) {
            let kinds = member.get("type");
            let text = |kind: &Value| kind == "string";
            let many = kinds.and_then(Value::as_array);
            let is_text =
                kinds.is_some_and(text) || many.is_some_and(|kinds| kinds.iter().any(text));
            if is_text && member.get("pattern").is_none() {
                set_pointer(member, "/pattern", PRINTABLE_PATTERN.into());
            }
        }
    }
}

/// Requires one of the two names; each may be null or absent.
fn login_name_schema() -> Value {
    let one = |name: &str| json!({"required": [name], "properties": {name: {"type": "string"}}});
    json!([one("email"), one("username")])
}

/// Adds the accepted credentials and the common rejections to an operation.
fn complete_operation(method: &str, credential: CredentialUse, operation: &mut Value) {
    set_pointer(operation, "/security", security(credential));
    let changes = method != "get";
    let mut common = vec![
        (
            "400",
            "Malformed, ambiguous or invalid; `fields` lists the problems",
        ),
        ("500", "Internal error"),
        (
            "503",
            "The store or database is unavailable, or the gateway is overloaded",
        ),
    ];
    match credential {
        CredentialUse::Ignored => {}
        CredentialUse::Optional => common.push(("401", "The credential is invalid")),
        CredentialUse::Required | CredentialUse::ApiKey => {
            common.push(("401", "The credential is missing or invalid"));
        }
    }
    let takes_cookie = matches!(
        credential,
        CredentialUse::Optional | CredentialUse::Required
    );
    if changes && takes_cookie {
        common.push((
            "403",
            "Authenticated by cookie, but not from the same origin",
        ));
    }
    if operation.get("requestBody").is_some() {
        common.push(("413", "The body is too large"));
        common.push(("415", "Unsupported media type"));
    }
    for (status, meaning) in common {
        let place = format!("/responses/{status}");
        if operation.pointer(&place).is_none() {
            set_pointer(operation, &place, json!({"description": meaning}));
        }
    }
    let responses = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    for (status, response) in responses.into_iter().flatten() {
        if status.as_str() >= "400" {
            set_pointer(response, "/content", refusal_content());
        }
    }
}

/// The three representations of a rejection.
fn refusal_content() -> Value {
    json!({
        "application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}},
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        "text/html": {"schema": {"type": "string"}},
    })
}

fn code_schema() -> Value {
    let mut codes: Vec<&str> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
    codes.dedup();
    json!({"type": "string", "enum": codes})
}

fn fields_schema() -> Value {
    json!({
        "type": "object",
        "description": "With `VALIDATION_FAILED`: each invalid field and its problem.",
        "additionalProperties": {"type": "string"},
    })
}

fn start_schema() -> Value {
    json!({
        "type": "string",
        "description": "After a sign-in at a provider that failed: the path that starts another.",
    })
}

fn refusal_schema() -> Value {
    json!({
        "type": "object",
        "required": ["success", "error"],
        "properties": {
            "success": {"const": false},
            "error": {
                "type": "object",
                "required": ["code", "message", "request_id"],
                "properties": {
                    "code": code_schema(),
                    "message": {"type": "string"},
                    "request_id": {"type": "string"},
                    "fields": fields_schema(),
                    "start": start_schema(),
                },
            },
        },
        "example": {"success": false, "error": {
            "code": "SESSION_REVOKED",
            "message": "The session has been revoked.",
            "request_id": "2424c21a6ba14f16adaebcc74dcac7b2",
        }},
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": code_schema(),
            "request_id": {"type": "string"},
            "fields": fields_schema(),
            "start": start_schema(),
            "violated-policies": {"type": "array", "items": {"type": "string"}},
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "session": {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "`Session <session token>`, for programs without cookies",
        },
        "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-portcullis"},
        "basic": {
            "type": "http", "scheme": "basic",
            "description": "An API key as the password; the user name is ignored",
        },
    })
}

/// Sets a value at a JSON pointer, creating intermediate objects.
fn set_pointer(into: &mut Value, pointer: &str, value: Value) {
    let mut place = into;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Some(members) = place.as_object_mut() else {
            return;
        };
        place = members.entry(name).or_insert(Value::Null);
    }
    *place = value;
}
