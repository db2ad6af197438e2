#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn email_has_one_canonical_form() {
    let long = format!("{}@example.com", "a".repeat(242));
    let too_long = format!("a{long}");
    let cases = [
        ("ann@example.com", Some("ann@example.com")),
        ("Ann.B+x@EXAMPLE.com", Some("ann.b+x@example.com")),
        ("root@localhost", Some("root@localhost")),
        (long.as_str(), Some(long.as_str())),
        (too_long.as_str(), None),
        ("", None),
        ("ann", None),
        ("@example.com", None),
        ("ann@", None),
        ("ann@a@example.com", None),
        ("ann@exa mple.com", None),
        (" ann@example.com", None),
        ("ann@example.com\n", None),
        ("a\0nn@example.com", None),
        ("ann@.example.com", None),
        ("ann@example..com", None),
        ("ann@example.com.", None),
        ("änn@example.com", None),
        ("ann@exämple.com", None),
        ("ann@example.com,bob@example.com", None),
    ];
    for (text, expected) in cases {
        assert_eq!(email(text).ok().as_deref(), expected, "{text}");
    }
}

#[test]
fn username_cannot_be_an_email() {
    for good in ["a", "Ann", "a.b-c_9", &"x".repeat(64)] {
        assert_eq!(username(good).unwrap(), good);
    }
    for bad in ["", "a b", "a@b", "ä", "a\0", "a/b", &"x".repeat(65)] {
        assert!(username(bad).is_err(), "{bad}");
    }
}

#[test]
fn login_spellings_are_canonicalized() {
    let ann = LoginName::Email("ann@example.com".to_owned());
    for text in ["ann@example.com", " Ann@Example.COM ", "ANN@EXAMPLE.COM\t"] {
        assert_eq!(LoginName::parse(text), ann, "{text}");
    }
    assert_eq!(
        LoginName::parse(" Ann"),
        LoginName::Username("ann".to_owned())
    );
}

#[test]
fn account_name_spellings_fold_to_one() {
    let name = AccountName::parse("andre strasse").unwrap();
    for typed in [
        " Andr\u{e9} Stra\u{df}e\u{3000}",
        "ANDRE\u{301}\u{2003}STRASSE",
        "\u{ff21}ndr\u{ea}\u{a0}\u{17f}tra\u{1e9e}e",
        "andr\u{1ec7} \u{24e2}trasse",
    ] {
        assert_eq!(AccountName::parse(typed), Ok(name.clone()), "{typed}");
    }
    for (typed, folded) in [
        ("\u{130}", "i"),
        ("\u{131}", "i"),
        ("\u{3a3}\u{3c2}", "\u{3c3}\u{3c3}"),
        ("\u{212a}", "k"),
        ("\u{fb01}", "fi"),
    ] {
        assert_eq!(fold(typed), folded, "{typed}");
    }
    for hidden in [
        "a\0",
        "a\u{85}",
        "\u{200d}",
        "a\u{feff}b",
        "\u{2028}",
        "\u{fe0f}",
    ] {
        assert!(AccountName::parse(hidden).is_err(), "{hidden:?}");
    }
}

#[test]
fn new_password_is_checked_for_length_and_names() {
    let check = |text: &str| check_new_password(text, 12, "ann@example.com", Some("annannannann"));
    for good in [
        "twelve chars",
        &"x".repeat(128),
        " leading and trailing ",
        "ééééééééééé🔑",
        &"x".repeat(1024),
        &"é".repeat(1024),
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        "eleven char",
        "with a \0 in it",
        "with a \n in it",
        "ANN@example.com",
        "AnnAnnAnnAnn",
        "Qwerty123456",
        &"x".repeat(1025),
        &"é".repeat(1025),
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

#[test]
fn scopes_can_be_joined_and_split() {
    assert_eq!(
        scopes(&list(&["a", "b:c", "a"])).unwrap(),
        list(&["a", "b:c"])
    );
    for bad in ["", "a b", "a,b", "a\"b", "ä", "a\r\nb"] {
        assert!(scopes(&list(&[bad])).is_err(), "{bad}");
    }
    assert!(scopes(&vec!["a".to_owned(); 65]).is_err());
}

#[test]
fn roles_may_contain_unicode() {
    assert_eq!(
        roles(&list(&["équipe", "team lead"])).unwrap(),
        list(&["équipe", "team lead"])
    );
    for bad in ["", "a,b", " a", "a\r\nb"] {
        assert!(roles(&list(&[bad])).is_err(), "{bad}");
    }
}
