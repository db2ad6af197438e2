#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::identity::oidc::fixtures::provider;

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn read(settings: &Provider, sources: &[Value]) -> Result<ProviderUser, CallbackFault> {
    let sources = sources.iter().map(|source| source.as_object().unwrap());
    UserClaims::new(sources).read(settings)
}

fn mapped(user: &[&str], roles: &[&str]) -> Provider {
    let mut settings = provider("https://id.example");
    settings.claims.user = list(user);
    settings.claims.roles = list(roles);
    settings
}

#[test]
fn user_id_is_visible_text_or_a_whole_number() {
    let settings = mapped(&["id"], &[]);
    let long = "x".repeat(256);
    for (id, expected) in [
        (json!("ann"), Some("ann")),
        (json!("ünï-42"), Some("ünï-42")),
        (json!(42), Some("42")),
        (json!(0), Some("0")),
        (json!(-7), Some("-7")),
        (json!(9_007_199_254_740_991_i64), Some("9007199254740991")),
        (json!(9_007_199_254_740_992_i64), None),
        (json!(u64::MAX), None),
        (json!(1.5), None),
        (json!(1.0), None),
        (json!(1e3), None),
        (json!(""), None),
        (json!(" "), None),
        (json!("a b"), None),
        (json!("a\u{200b}"), None),
        (json!("a\u{0}"), None),
        (json!("a\nb"), None),
        (json!(long), None),
        (json!(true), None),
        (json!(["ann"]), None),
        (json!({"id": "ann"}), None),
        (json!(null), None),
    ] {
        let user = read(&settings, &[json!({ "id": id })]);
        let expected = expected.ok_or(CallbackFault::UserIdUnusable);
        assert_eq!(
            user.as_ref().map(|user| &*user.user_id),
            expected.as_ref().copied(),
            "{id}"
        );
    }
    assert_eq!(
        read(&settings, &[json!({})]).err(),
        Some(CallbackFault::UserIdUnusable)
    );
}

#[test]
fn claims_are_found_by_name_or_pointer_in_order() {
    let claims = json!({
        "a.b": "dotted",
        "a": {"b": "nested", "c/d~e": "escaped", "list": ["zero", "one"]},
        "/slash": "never",
        "null": null,
    });
    for (names, expected) in [
        (&["a.b"] as &[&str], Some("dotted")),
        (&["/a/b"], Some("nested")),
        (&["/a/c~1d~0e"], Some("escaped")),
        (&["/a/list/1"], Some("one")),
        (&["/a/list/01"], None),
        (&["/a/list/2"], None),
        (&["/slash"], None),
        (&["/a.b"], Some("dotted")),
        (&["missing", "/a/b"], Some("nested")),
        (&["null", "a.b"], Some("dotted")),
        (&["/a/b", "a.b"], Some("nested")),
        (&["missing"], None),
    ] {
        let user = read(&mapped(names, &[]), std::slice::from_ref(&claims));
        assert_eq!(
            user.ok().as_ref().map(|user| &*user.user_id),
            expected,
            "{names:?}"
        );
    }
}

#[test]
fn only_true_verifies_an_email() {
    let mut settings = provider("https://id.example");
    for (verified, expected) in [
        (json!(true), true),
        (json!(false), false),
        (json!("true"), false),
        (json!(1), false),
        (json!([true]), false),
        (json!(null), false),
    ] {
        let claims = json!({"sub": "1", "email": "ann@example.com", "email_verified": verified});
        settings.trust_email = false;
        let user = read(&settings, std::slice::from_ref(&claims)).unwrap();
        assert_eq!(user.email.is_some(), expected, "{verified}");
        settings.trust_email = true;
        assert_eq!(
            read(&settings, &[claims]).unwrap().email.as_deref(),
            Some("ann@example.com")
        );
    }
}

#[test]
fn email_is_verified_by_its_own_source() {
    let settings = provider("https://id.example");
    let token = |members: Value| {
        let mut claims = json!({"sub": "1"});
        claims
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        claims
    };
    for (id_token, userinfo, expected) in [
        // The other source verifies another email.
        (
            json!({"email": "victim@example.com"}),
            json!({"email": "evil@example.com", "email_verified": true}),
            None,
        ),
        // The other source verifies none.
        (
            json!({"email": "ann@example.com"}),
            json!({"email_verified": true}),
            None,
        ),
        (
            json!({"email": "ann@example.com"}),
            json!({"email": "ann@example.com", "email_verified": true}),
            Some("ann@example.com"),
        ),
        // What the source says itself decides.
        (
            json!({"email": "ann@example.com", "email_verified": false}),
            json!({"email": "ann@example.com", "email_verified": true}),
            None,
        ),
        (
            json!({"email_verified": true}),
            json!({"email": "ann@example.com"}),
            None,
        ),
        (
            json!({}),
            json!({"email": "ann@example.com", "email_verified": true}),
            Some("ann@example.com"),
        ),
    ] {
        let user = read(
            &settings,
            &[token(id_token.clone()), token(userinfo.clone())],
        );
        assert_eq!(
            user.unwrap().email.as_deref(),
            expected,
            "{id_token} {userinfo}"
        );
    }
}

#[test]
fn verified_email_is_the_one_that_the_flag_is_about() {
    let mut settings = provider("https://id.example");
    let chosen = "boss@example.com";
    for (names, email, expected) in [
        (
            &["preferred_username", "email"] as &[&str],
            "ann@example.com",
            false,
        ),
        (&["preferred_username", "email"], "Boss@Example.com", true),
        (&["preferred_username"], "ann@example.com", false),
        (&["email", "preferred_username"], "ann@example.com", true),
        (&["/preferred_username"], "ann@example.com", false),
    ] {
        settings.claims.email = list(names);
        let claims = json!({
            "sub": "1", "preferred_username": chosen, "email": email, "email_verified": true,
        });
        let user = read(&settings, &[claims]).unwrap();
        assert_eq!(user.email.is_some(), expected, "{names:?} {email}");
    }
    // A flag beside the claim that it is about, and one without `email`.
    settings.claims.email = list(&["/profile/mail"]);
    settings.claims.email_verified = list(&["/profile/verified"]);
    let claims = json!({
        "sub": "1", "email": "ann@example.com", "profile": { "mail": chosen, "verified": true },
    });
    assert_eq!(
        read(&settings, &[claims]).unwrap().email.as_deref(),
        Some(chosen)
    );
    settings.claims.email = list(&["upn"]);
    settings.claims.email_verified = list(&["email_verified"]);
    let claims = json!({ "sub": "1", "upn": chosen, "email_verified": true });
    assert_eq!(
        read(&settings, &[claims]).unwrap().email.as_deref(),
        Some(chosen)
    );
}

#[test]
fn attributes_of_a_wrong_type_are_rejected() {
    let mut settings = mapped(&["sub"], &["roles"]);
    settings.claims.scopes = list(&["scope"]);
    let many: Vec<String> = (0..501).map(|number| number.to_string()).collect();
    for (name, value) in [
        ("email", json!(["ann@example.com"])),
        ("email", json!("a\r\nb@example.com")),
        ("email", json!(format!("{}@example.com", "x".repeat(254)))),
        ("name", json!({"first": "Ann"})),
        ("roles", json!({"admin": true})),
        ("roles", json!(["admin", 1])),
        ("roles", json!(true)),
        ("roles", json!(["a\nb"])),
        ("roles", json!(many)),
        ("roles", json!(["x".repeat(256)])),
        ("scope", json!(1)),
    ] {
        let claims = json!({"sub": "1", name: value});
        let user = read(&settings, &[claims]);
        assert_eq!(
            user.err(),
            Some(CallbackFault::ClaimMalformed),
            "{name} {value}"
        );
    }
}

#[test]
fn names_are_lists_or_separated_texts() {
    let mut settings = mapped(&["sub"], &["/realm/roles"]);
    settings.claims.scopes = list(&["scope"]);
    for (roles, expected) in [
        (json!(["a", "b", "a", ""]), &["a", "b"] as &[&str]),
        (json!("a b,c"), &["a", "b", "c"]),
        (json!(""), &[]),
        (json!([]), &[]),
        (json!(null), &[]),
    ] {
        let user = read(&settings, &[json!({"sub": "1", "realm": {"roles": roles}})]);
        assert_eq!(user.unwrap().roles, list(expected), "{roles}");
    }
    let user = read(&settings, &[json!({"sub": "1", "scope": "read write,x"})]);
    assert_eq!(user.unwrap().scopes, list(&["read", "write,x"]));
}

#[test]
fn map_drops_roles_that_it_lacks() {
    let mut settings = mapped(&["sub"], &["groups"]);
    settings.roles_map = Some(BTreeMap::from([
        ("staff".to_owned(), list(&["user", "reader"])),
        ("ops".to_owned(), list(&["admin", "user"])),
    ]));
    let user = read(
        &settings,
        &[json!({"sub": "1", "groups": ["ops", "admin", "staff"]})],
    )
    .unwrap();
    assert_eq!(user.roles, list(&["admin", "user", "reader"]));
    assert_eq!(user.groups, list(&["ops", "admin", "staff"]));
}

#[test]
#[rustfmt::skip]
fn mapped_claim_that_is_only_referenced_is_an_error() {
    let names = json!({"_claim_names": {"groups": "src1"}});
    let with_roles = json!({"_claim_names": {"groups": "src1"}, "roles": ["a"]});
    let nothing = json!({});
    for (roles, id_token, userinfo, is_error) in [
        (&["groups"] as &[&str], &names, &nothing, true),
        (&["/groups/0"], &names, &nothing, true),
        (&["groups"], &nothing, &names, true),
        (&["groups", "roles"], &with_roles, &nothing, true),
        (&["roles", "groups"], &with_roles, &nothing, false),
        (&["groups"], &names, &json!({"groups": ["a"]}), false),
        (&["roles"], &names, &nothing, false),
        (&["groups"], &json!({"_claim_names": "groups"}), &nothing, false),
    ] {
        let settings = mapped(&["/user/id"], roles);
        let user = json!({"user": {"id": 1}});
        let result = read(&settings, &[id_token.clone(), userinfo.clone(), user]);
        let expected = is_error.then_some(CallbackFault::ClaimReferenced);
        assert_eq!(result.err(), expected, "{roles:?} {id_token} {userinfo}");
    }
}

#[test]
fn userinfo_is_needed_where_a_mapped_claim_is_missing() {
    let mut settings = provider("https://id.example");
    let complete = json!({"sub": "1", "email": "a@b", "email_verified": true, "name": "Ann"});
    let check = |settings: &Provider, without: &str, expected: bool| {
        let mut claims = complete.as_object().unwrap().clone();
        claims.remove(without);
        let is_complete = UserClaims::new([&claims]).are_complete(settings);
        assert_eq!(is_complete, expected, "{without}");
    };
    check(&settings, "", true);
    for missing in ["sub", "email", "email_verified", "name"] {
        check(&settings, missing, false);
    }
    settings.trust_email = true;
    check(&settings, "email_verified", true);
    settings.claims.name = Vec::new();
    check(&settings, "name", true);
    settings.claims.roles = list(&["roles"]);
    check(&settings, "", false);
}

#[test]
fn roles_that_no_session_can_hold_are_rejected() {
    let mut settings = mapped(&["sub"], &["groups"]);
    settings.claims.scopes = list(&["scope"]);
    let names = |count: usize, length: usize| -> Vec<String> {
        (0..count).map(|n| format!("{n:0length$}")).collect()
    };
    let fits = json!({"sub": "1", "groups": names(500, 37), "scope": names(500, 37)});
    assert!(read(&settings, &[fits]).is_ok());
    for claim in ["groups", "scope"] {
        let large = json!({"sub": "1", claim: names(500, 140)});
        let fault = read(&settings, &[large]).err();
        assert_eq!(fault, Some(CallbackFault::ClaimTooLarge), "{claim}");
    }
    // Only what the map leaves is kept.
    settings.roles_map = Some([("0".repeat(140), list(&["first"]))].into());
    let large = json!({"sub": "1", "groups": names(500, 140)});
    assert_eq!(read(&settings, &[large]).unwrap().roles, ["first"]);
}
