#![expect(clippy::unwrap_used, reason = "tests")]

use CallbackFault as F;

use super::*;

const JSON: ContentKind = ContentKind::Json;

/// Responses with an error, and the fault that each is.
#[rustfmt::skip]
const ERRORS: &[(u16, ContentKind, &str, F)] = &[
    (400, JSON, r#"{"error":"invalid_grant"}"#, F::GrantRejected),
    (401, JSON, r#"{"error":"invalid_grant"}"#, F::GrantRejected),
    (403, JSON, r#"{"error":"invalid_grant","error_description":"x"}"#, F::GrantRejected),
    (400, JSON, r#"{"error":"invalid_client"}"#, F::ClientRejected),
    (401, JSON, r#"{"error":"invalid_client"}"#, F::ClientRejected),
    (400, JSON, r#"{"error":"unauthorized_client"}"#, F::RequestRejected),
    (400, JSON, r#"{"error":"INVALID_GRANT"}"#, F::RequestRejected),
    (400, JSON, r#"{"error":["invalid_grant"]}"#, F::RequestRejected),
    (400, JSON, r#"{"error":"x","error":"invalid_grant"}"#, F::RequestRejected),
    (400, ContentKind::Other, r#"{"error":"invalid_grant"}"#, F::RequestRejected),
    (400, JSON, "invalid_grant", F::RequestRejected),
    (404, JSON, "", F::RequestRejected),
    (408, ContentKind::Other, "", F::RequestRejected),
    (204, JSON, "", F::UnexpectedStatus),
    (201, JSON, r#"{"access_token":"a","token_type":"Bearer"}"#, F::UnexpectedStatus),
    (302, JSON, r#"{"error":"invalid_grant"}"#, F::UnexpectedStatus),
    (200, ContentKind::Other, r#"{"access_token":"a","token_type":"Bearer"}"#, F::UnexpectedContentType),
    (200, ContentKind::Jwt, "", F::UnexpectedContentType),
];

/// Bodies of responses with status 200, and the fault of each that is not accepted.
#[rustfmt::skip]
const BODIES: &[(&str, Option<F>)] = &[
    (r#"{"access_token":"a","token_type":"Bearer"}"#, None),
    (r#"{"access_token":"a","token_type":"bearer","expires_in":"60"}"#, None),
    (r#"{"access_token":"a","token_type":"BEARER","expires_in":60,"refresh_token":null}"#, None),
    (r#"{"token_type":"Bearer"}"#, Some(F::AccessTokenMissing)),
    (r#"{"access_token":null,"token_type":"Bearer"}"#, Some(F::AccessTokenMissing)),
    (r#"{"access_token":"","token_type":"Bearer"}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":1,"token_type":"Bearer"}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"a\r\nb","token_type":"Bearer"}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"ä","token_type":"Bearer"}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"a"}"#, Some(F::TokenTypeUnsupported)),
    (r#"{"access_token":"a","token_type":"DPoP"}"#, Some(F::TokenTypeUnsupported)),
    (r#"{"access_token":"a","token_type":["Bearer"]}"#, Some(F::TokenTypeUnsupported)),
    (r#"{"access_token":"a","token_type":"Bearer","id_token":{}}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"a","token_type":"Bearer","refresh_token":1}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"a","token_type":"Bearer","expires_in":-1}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"a","token_type":"Bearer","expires_in":"soon"}"#, Some(F::ResponseMalformed)),
    (r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#, Some(F::ResponseMalformed)),
    (r#"[{"access_token":"a","token_type":"Bearer"}]"#, Some(F::ResponseMalformed)),
    ("access_token=a&token_type=bearer", Some(F::ResponseMalformed)),
    ("", Some(F::ResponseMalformed)),
];

fn response(status: u16, content: ContentKind, body: &str) -> ProviderResponse {
    ProviderResponse {
        status: StatusCode::from_u16(status).unwrap(),
        content,
        body: body.to_owned().into(),
    }
}

#[test]
fn error_responses_are_classified() {
    for (status, content, body, fault) in ERRORS {
        let response = response(*status, *content, body);
        let result = read_response(&response, ErrorReports::ByStatus);
        assert_eq!(result.err(), Some(*fault), "{status} {content:?} {body}");
    }
}

#[test]
fn token_responses_are_read_strictly() {
    for (body, fault) in BODIES {
        let result = read_response(&response(200, JSON, body), ErrorReports::ByStatus);
        assert_eq!(result.err(), *fault, "{body}");
    }
}

#[test]
fn error_with_status_200_counts_where_there_are_no_id_tokens() {
    for (error, fault) in [
        ("bad_verification_code", F::GrantRejected),
        ("incorrect_client_credentials", F::ClientRejected),
        ("redirect_uri_mismatch", F::RequestRejected),
    ] {
        let body = format!(r#"{{"error":"{error}"}}"#);
        let response = response(200, JSON, &body);
        let result = read_response(&response, ErrorReports::AlsoInSuccess);
        assert_eq!(result.err(), Some(fault));
        let result = read_response(&response, ErrorReports::ByStatus);
        assert_eq!(result.err(), Some(F::AccessTokenMissing));
    }
}

#[test]
fn tokens_are_not_printed() {
    let body = r#"{"access_token":"hunter2","token_type":"Bearer","refresh_token":"hunter2"}"#;
    let tokens = read_response(&response(200, JSON, body), ErrorReports::ByStatus).unwrap();
    assert!(!format!("{tokens:?}").contains("hunter2"));
    assert!(!format!("{:?}", tokens.access_token).contains("hunter2"));
}
