//! Every rule of an ID token: one row breaks it, and the sign-in fails for that reason.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::table::{Table, provider_error, refused, setting, user_with};
use crate::support::provider::{
    CLIENT_ID, CLIENT_SECRET, Endpoint, Jwt, Provider, Signature, SigningKey, User,
};
use crate::support::tokens;
use crate::support::visitor::Visitor;

pub(super) type Break = Box<dyn Fn(&mut Jwt) + Send + Sync>;
pub(super) type Row = (&'static str, Break, &'static str);

pub(super) fn claim(name: &'static str, value: serde_json::Value) -> Break {
    Box::new(move |token| token.claims[name] = value.clone())
}

pub(super) fn without(name: &'static str) -> Break {
    Box::new(move |token| token.remove(name))
}

fn header(name: &'static str, value: serde_json::Value) -> Break {
    Box::new(move |token| token.header[name] = value.clone())
}

fn respelled(respell: fn(String) -> String) -> Break {
    Box::new(move |token| token.respell = Some(respell))
}

const MALFORMED: &str = "the provider's token is malformed";
const ALGORITHM: &str = "the algorithm of the provider's token is not permitted";
const SIGNATURE: &str = "the signature of the provider's token is wrong";
const ISSUER: &str = "iss of the provider's token is not the provider's issuer";
const NO_ISSUER: &str = "iss of the provider's token is missing or malformed";
const NO_AUDIENCE: &str = "aud of the provider's token is missing or malformed";
const AUDIENCE: &str = "aud of the provider's token is wrong";
const TIMES: &str = "a time of the provider's token is missing or malformed";
const FUTURE: &str = "the provider's token is not valid yet";
const SUBJECT: &str = "sub of the provider's token is missing or malformed";
const NONCE: &str = "the nonce of the provider's token is wrong";

pub(super) fn audience_rows(issuer: &str) -> Vec<Row> {
    let slashed = format!("{issuer}/");
    vec![
        ("no iss", without("iss"), NO_ISSUER),
        ("iss in a list", claim("iss", json!([issuer])), NO_ISSUER),
        (
            "another iss",
            claim("iss", json!("https://other.example")),
            ISSUER,
        ),
        ("iss with a slash", claim("iss", json!(slashed)), ISSUER),
        ("no aud", without("aud"), NO_AUDIENCE),
        ("a number as aud", claim("aud", json!(1)), NO_AUDIENCE),
        ("another aud", claim("aud", json!("other")), AUDIENCE),
        (
            "one more aud",
            claim("aud", json!([CLIENT_ID, "other"])),
            AUDIENCE,
        ),
        ("an empty aud", claim("aud", json!([])), AUDIENCE),
    ]
}

fn claim_rows() -> Vec<Row> {
    let now = tokens::now();
    vec![
        (
            "another azp",
            claim("azp", json!("other")),
            "azp of the provider's token is not the client",
        ),
        ("no exp", without("exp"), TIMES),
        ("no iat", without("iat"), TIMES),
        (
            "exp in the past",
            claim("exp", json!(now - 60)),
            "the provider's token has expired",
        ),
        ("iat in the future", claim("iat", json!(now + 60)), FUTURE),
        ("nbf in the future", claim("nbf", json!(now + 60)), FUTURE),
        ("no sub", without("sub"), SUBJECT),
        ("an empty sub", claim("sub", json!("")), SUBJECT),
        (
            "a sub of 256 characters",
            claim("sub", json!("a".repeat(256))),
            SUBJECT,
        ),
        ("a sub beyond ASCII", claim("sub", json!("änn")), SUBJECT),
        ("no nonce", without("nonce"), NONCE),
        (
            "another nonce",
            claim("nonce", json!("a".repeat(43))),
            NONCE,
        ),
        (
            "another at_hash",
            claim("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")),
            "at_hash does not match the access token",
        ),
        (
            "sub twice",
            Box::new(|token| token.duplicate("sub", &json!("root"))),
            MALFORMED,
        ),
        (
            "aud twice",
            Box::new(|token| token.duplicate("aud", &json!("other"))),
            MALFORMED,
        ),
    ]
}

pub(super) fn signature_rows() -> Vec<Row> {
    let other = SigningKey::generate("ES256", "other");
    let forged = SigningKey::generate("ES256", "key-0");
    let forbidden = SigningKey::generate("ES384", "key-0");
    vec![
        (
            "none",
            Box::new(|token| {
                token.header["alg"] = json!("none");
                token.signature = Signature::Bytes(Vec::new());
            }),
            ALGORITHM,
        ),
        (
            "HS256 with the client's secret",
            Box::new(|token| {
                token.header["alg"] = json!("HS256");
                token.signature = Signature::Secret(CLIENT_SECRET.as_bytes().to_vec());
            }),
            ALGORITHM,
        ),
        (
            "an algorithm that is not configured",
            Box::new(move |token| token.sign_with(&forbidden)),
            ALGORITHM,
        ),
        (
            "a key that is not published",
            Box::new(move |token| token.sign_with(&other)),
            "no key of the provider has the kid of its token",
        ),
        (
            "another key by the name of the provider's",
            Box::new(move |token| token.sign_with(&forged)),
            SIGNATURE,
        ),
        (
            "no signature",
            Box::new(|token| token.signature = Signature::Bytes(Vec::new())),
            MALFORMED,
        ),
    ]
}

fn changed_row() -> Row {
    (
        "claims that were changed later",
        respelled(|token| {
            let parts: Vec<&str> = token.split('.').collect();
            let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
            let claims = claims.replace("\"sub\":\"ann\"", "\"sub\":\"bob\"");
            [parts[0], &URL_SAFE_NO_PAD.encode(claims), parts[2]].join(".")
        }),
        SIGNATURE,
    )
}

/// Rows of the form of a token, whatever it is for.
pub(super) fn form_rows() -> Vec<Row> {
    vec![
        ("padding", respelled(|token| format!("{token}=")), MALFORMED),
        (
            "two parts",
            respelled(|token| token.rsplit_once('.').unwrap().0.to_owned()),
            MALFORMED,
        ),
        (
            "four parts",
            respelled(|token| format!("{token}.")),
            MALFORMED,
        ),
        (
            "an encrypted token",
            respelled(|token| format!("{token}.x.x")),
            "the provider's token is encrypted",
        ),
        (
            "alg twice",
            Box::new(|token| {
                token.header_text =
                    Some(r#"{"alg":"none","alg":"ES256","kid":"key-0"}"#.to_owned());
            }),
            MALFORMED,
        ),
        (
            "crit",
            header("crit", json!(["b64"])),
            "the provider's token has critical header parameters",
        ),
        (
            "the type of an access token",
            header("typ", json!("at+jwt")),
            "typ of the provider's token is wrong",
        ),
        (
            "the type of a logout token",
            header("typ", json!("logout+jwt")),
            "typ of the provider's token is wrong",
        ),
    ]
}

#[test]
fn each_broken_rule_fails_the_sign_in() {
    let table = Table::start();
    let mut rows = signature_rows();
    rows.extend(form_rows());
    rows.push(changed_row());
    rows.extend(audience_rows(&table.provider.issuer));
    rows.extend(claim_rows());
    for (what, lie, reason) in rows {
        let before = table.redemptions();
        table.provider.vary_id_token(lie);
        table.fails(what, provider_error(reason));
        assert_eq!(
            table.redemptions(),
            before + 1,
            "{what}: a code is redeemed once"
        );
    }
    table.has_kept_secrets();
}

#[test]
fn right_tokens_of_every_form_sign_in() {
    let extra = json!(["https://api.example"]);
    let table = Table::start_with(|config| config.set(&setting("extra_audiences"), extra));
    let rows: Vec<(&str, Break)> = vec![
        ("nothing special", Box::new(|_| {})),
        ("aud in a list", claim("aud", json!([CLIENT_ID]))),
        (
            "an extra audience",
            claim("aud", json!([CLIENT_ID, "https://api.example"])),
        ),
        ("its own azp", claim("azp", json!(CLIENT_ID))),
        ("no at_hash", without("at_hash")),
        (
            "no typ",
            Box::new(|token| drop(token.header.as_object_mut().unwrap().remove("typ"))),
        ),
        (
            "a claim that no one knows",
            claim("https://x.example/y", json!([{}])),
        ),
    ];
    for (what, change) in rows {
        table.provider.vary_id_token(change);
        table.succeeds(what);
    }
    for algorithm in ["RS256", "EdDSA", "ES256"] {
        // A key that was never seen is fetched, once in 30 seconds.
        let table = Table::start();
        table.provider.rotate_key(algorithm);
        table.succeeds(algorithm);
    }
}

#[test]
fn requested_authentication_must_be_in_the_token() {
    let parameters = json!({ "max_age": "600" });
    let table =
        Table::start_with(|config| config.set(&setting("authorization_params"), parameters));
    table
        .provider
        .vary_id_token(|token| token.remove("auth_time"));
    let reason = "auth_time is missing although max_age was requested";
    table.fails("no auth_time", provider_error(reason));
    table
        .provider
        .set_authentication_age(std::time::Duration::from_secs(900));
    let reason = "auth_time is older than max_age permits";
    table.fails("an old auth_time", refused(reason));
    table
        .provider
        .set_authentication_age(std::time::Duration::from_secs(300));
    table.succeeds("a recent auth_time");
}

#[test]
fn requested_authentication_context_must_be_in_the_token() {
    let table = Table::start();
    let start = |visitor: &mut Visitor| {
        let url = format!("{}&acr_values=gold+silver", table.start_url());
        visitor.open(&url)
    };
    let unmet = refused("acr is none of those requested");
    let rows: Vec<(&str, Break)> = vec![
        ("no acr", without("acr")),
        ("another acr", claim("acr", json!("bronze"))),
        ("both at once", claim("acr", json!("gold silver"))),
    ];
    for (what, lie) in rows {
        table.provider.vary_id_token(lie);
        table.fails_with(what, unmet, start);
    }
    table.provider.vary_id_token(claim("acr", json!("silver")));
    let visit = start(&mut Visitor::new());
    assert_eq!(visit.response.status, 200, "{visit:?}");
}

#[test]
fn provider_without_id_tokens_meets_no_authentication_context() {
    let provider = Provider::start();
    let hub = provider.github_settings();
    let table = Table::start_at(provider, |config| {
        config.set("/identity/providers/hub", hub)
    });
    let start = |query: &str| {
        let gateway = &table.gateway.public;
        let start = format!("http://{gateway}/api/v1/auth/start/hub?return_to=/private/a{query}");
        Visitor::new().open(&start)
    };
    assert_eq!(start("").response.status, 200);
    let refused = start("&acr_values=gold").response;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("SIGN_IN_REFUSED"));
    let reason = "acr is none of those requested";
    table.gateway.wait_for_log(reason);
}

#[test]
fn claims_that_identify_no_user_fail_the_sign_in() {
    let roles = json!({ "roles": "groups" });
    let table = Table::start_with(|config| config.set(&setting("claims"), roles));
    table.provider.vary_id_token(|token| {
        token.claims["_claim_names"] = json!({ "groups": "src1" });
        token.claims["_claim_sources"] = json!({ "src1": { "endpoint": "https://x.example" } });
    });
    let reason = "a mapped claim is only referenced (_claim_names)";
    table.fails("groups elsewhere", provider_error(reason));
    table
        .provider
        .vary(Endpoint::Userinfo, |reply| reply.set("sub", json!("other")));
    let reason = "sub of the userinfo response is not that of the ID token";
    table.fails("userinfo of another user", provider_error(reason));
    table
        .provider
        .set_user(user_with("groups", json!(["staff"])));
    table.succeeds("groups in the token");
}

#[test]
fn allow_admits_verified_emails_alone() {
    let allow = json!({ "domains": ["example.com"], "emails": ["zoe@other.example"] });
    let table = Table::start_with(|config| config.set(&setting("allow"), allow));
    let not_allowed = refused("allow does not admit the user");
    for (email, verified) in [
        ("ann@other.example", json!(true)),
        ("ann@sub.example.com", json!(true)),
        ("ann@notexample.com", json!(true)),
        ("ann@other.example@example.com", json!(true)),
        ("ann@example.com", json!(false)),
        ("ann@example.com", json!("true")),
        ("ann@example.com", json!(null)),
        ("ann@example.com", json!(1)),
    ] {
        let user = User::new("ann").claim("email", json!(email));
        table
            .provider
            .set_user(user.claim("email_verified", verified.clone()));
        table.fails(&format!("{email} {verified}"), not_allowed);
    }
    for email in ["ann@example.com", "Ann@EXAMPLE.com", "zoe@other.example"] {
        table.provider.set_user(user_with("email", json!(email)));
        table.succeeds(email);
    }
}
