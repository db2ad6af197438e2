#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn ambiguous_json_is_rejected() {
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let bad: [&[u8]; 15] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"\"text\"",
        b"{",
        br#"{"a":1,"a":1}"#,
        br#"{"a":{"b":1,"b":2}}"#,
        br#"{"a":[{"b":1,"\u0062":2}]}"#,
        br#"{"a":1e999}"#,
        br#"{"a":"\ud800"}"#,
        b"{\"a\":\"\xff\"}",
        br#"{"a":1} x"#,
        br#"{"a":NaN}"#,
        deep.as_bytes(),
    ];
    for bad in bad {
        let refused = BodyFields::parse(bad).err().unwrap();
        assert_eq!(refused.refusal, Refusal::ValidationFailed);
        assert_eq!(refused.fields().first().unwrap().0, "body");
    }
    assert!(BodyFields::parse(br#"{"a":{"b":[1,-2,3.5,null,true,"x"]}}"#).is_ok());
}

#[test]
fn syntax_error_never_quotes_the_body() {
    let refused = BodyFields::parse(br#"{"password": "hunter2" hunter3}"#)
        .err()
        .unwrap();
    assert!(!format!("{:?}", refused.fields()).contains("hunter"));
}

#[test]
fn every_member_of_wrong_type_is_reported() {
    let mut fields =
        BodyFields::parse(br#"{"a":1,"b":"x\u0000","c":"yes","d":[1],"e":-1,"f":null}"#).unwrap();
    fields.text("a");
    fields.text("b");
    fields.text("missing");
    fields.optional_flag("c");
    fields.optional_texts("d");
    fields.optional_number("e");
    assert_eq!(fields.optional_text("f"), None);
    let rejection = fields.check().err().unwrap();
    let problems = rejection.fields();
    let names: Vec<&str> = problems.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "missing", "c", "d", "e"]);
}

#[test]
fn content_type_must_be_json() {
    let check = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        is_json(&headers)
    };
    assert!(check("application/json"));
    assert!(check("Application/JSON; charset=utf-8"));
    for other in [
        "text/plain",
        "application/jsonx",
        "text/plain;application/json",
        "",
    ] {
        assert!(!check(other), "{other}");
    }
    assert!(!is_json(&HeaderMap::new()));
}

#[test]
fn only_uncompressed_utf8_is_accepted() {
    let check = |charset: &str, encoding: &[&str]| {
        let mut headers = HeaderMap::new();
        let content_type = format!("application/json{charset}");
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        for coding in encoding {
            headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
        }
        is_json(&headers)
    };
    for charset in [
        "",
        ";charset=utf-8",
        "; Charset=\"UTF-8\"",
        "; charset=us-ascii",
        "; profile=x",
    ] {
        assert!(check(charset, &[]), "{charset}");
    }
    for charset in [
        "; charset=iso-8859-1",
        "; charset=utf-16",
        "; charset=",
        "; charset=utf-8; charset=utf-7",
    ] {
        assert!(!check(charset, &[]), "{charset}");
    }
    assert!(check("", &["identity"]));
    assert!(check("", &[""]));
    for coding in [
        &["gzip"][..],
        &["br"],
        &["identity, gzip"],
        &["identity", "deflate"],
    ] {
        assert!(!check("", coding), "{coding:?}");
    }
}
