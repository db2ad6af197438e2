#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;

const ID: &str = "0123456789abcdef";
/// All of it is fixed, so that the format never changes by accident.
const KEY: &str = "pck_0123456789abcdef_000000000000000000000000000000000000000000a";

fn key() -> String {
    format!("{KEY}{}", checksum(KEY))
}

#[test]
fn format_is_that_of_the_contract() {
    let pattern = regex::Regex::new("^pck_[0-9a-z]{16}_[0-9A-Za-z]{49}$").unwrap();
    for _ in 0..200 {
        let id = ApiKeyId::random();
        let key = ApiKeySecret::generate("pck", id);
        assert!(pattern.is_match(key.expose()), "{}", key.expose());
        let presented = PresentedApiKey::parse(key.expose(), "pck").unwrap();
        assert_eq!(presented.id, id);
        assert!(presented.hash.matches(&key.hash()));
    }
}

#[test]
fn checksum_is_crc_32_in_base62() {
    // CRC-32/ISO-HDLC of "123456789" is 0xCBF43926.
    assert_eq!(checksum("123456789"), base62::encode_number(0xCBF4_3926));
    assert_eq!(
        key(),
        "pck_0123456789abcdef_000000000000000000000000000000000000000000a4OdmUx"
    );
    assert!(PresentedApiKey::parse(&key(), "pck").is_some());
}

#[test]
fn broken_keys_are_no_keys() {
    let good = key();
    let with_checksum = |body: &str| format!("{body}{}", checksum(body));
    let (start, secret) = (format!("pck_{ID}_"), "0".repeat(42));
    for (name, text) in [
        ("empty", String::new()),
        ("prefix", "pck".to_owned()),
        ("prefix and underscore", "pck_".to_owned()),
        ("no secret", format!("pck_{ID}")),
        ("empty secret", start.clone()),
        ("another prefix", with_checksum(&KEY.replace("pck", "abc"))),
        (
            "prefix in upper case",
            with_checksum(&KEY.replace("pck", "PCK")),
        ),
        (
            "prefix alone longer",
            with_checksum(&KEY.replace("pck", "pckx")),
        ),
        (
            "ID in upper case",
            with_checksum(&KEY.replace("abcdef", "ABCDEF")),
        ),
        ("short ID", with_checksum(&KEY.replace(ID, &ID[1..]))),
        (
            "long ID",
            with_checksum(&KEY.replace(ID, &format!("{ID}0"))),
        ),
        (
            "ID with a dash",
            with_checksum(&KEY.replace("abcdef", "abcde-")),
        ),
        ("short secret", with_checksum(&format!("{start}{secret}"))),
        ("long secret", with_checksum(&format!("{start}{secret}ab"))),
        (
            "secret with a dash",
            with_checksum(&format!("{start}{secret}-")),
        ),
        (
            "secret with an underscore",
            with_checksum(&format!("{start}{secret}_")),
        ),
        (
            "secret beyond ASCII",
            with_checksum(&format!("{start}{}é", &secret[1..])),
        ),
        ("wrong checksum", format!("{}0", &good[..good.len() - 1])),
        ("no checksum", KEY.to_owned()),
        ("a character more", format!("{good}0")),
        ("a space before", format!(" {good}")),
        ("a space after", format!("{good} ")),
        ("a NUL after", format!("{good}\0")),
        ("two keys", format!("{good},{good}")),
    ] {
        assert!(PresentedApiKey::parse(&text, "pck").is_none(), "{name}");
    }
}

#[test]
fn ids_are_parsed_exactly() {
    assert_eq!(ApiKeyId::parse(ID).unwrap().to_string(), ID);
    for bad in [
        "",
        "0123456789abcde",
        "0123456789abcdef0",
        "0123456789ABCDEF",
        "0123456789abcde_",
        "0123456789abcdé",
    ] {
        assert_eq!(ApiKeyId::parse(bad), None, "{bad}");
    }
}

#[test]
fn nothing_prints_a_key() {
    let key = ApiKeySecret::generate("pck", ApiKeyId::random());
    assert_eq!(format!("{key:?}"), "ApiKeySecret(…)");
    assert_eq!(format!("{:?}", key.hash()), "SecretHash(…)");
    let presented = PresentedApiKey::parse(key.expose(), "pck").unwrap();
    assert!(!format!("{presented:?}").contains(&hex::encode(key.hash().0)));
}

proptest! {
    #[test]
    fn any_text_is_refused_or_a_key(text in "pck_[0-9a-z_]{14,18}_[0-9A-Za-z_é]{46,52}|.*") {
        if PresentedApiKey::parse(&text, "pck").is_some() {
            let (body, given) = text.split_at(text.len() - 6);
            prop_assert_eq!(checksum(body), given);
        }
    }

    #[test]
    fn one_changed_character_is_noticed(at in 0_usize..70, to in "[0-9A-Za-z_]") {
        let key = key();
        let mut changed: Vec<char> = key.chars().collect();
        changed[at] = to.chars().next().unwrap();
        let changed: String = changed.into_iter().collect();
        let parsed = PresentedApiKey::parse(&changed, "pck");
        prop_assert_eq!(parsed.is_some(), changed == key);
    }

    #[test]
    fn keys_of_any_prefix_are_read_again(prefix in "[0-9A-Za-z_]{1,32}") {
        let id = ApiKeyId::random();
        let key = ApiKeySecret::generate(&prefix, id);
        let parsed = PresentedApiKey::parse(key.expose(), &prefix);
        prop_assert_eq!(parsed.map(|presented| presented.id), Some(id));
    }
}
