//! Whether a user of a provider may sign in.

use super::user::ProviderUser;
use crate::settings::provider::{Allow, AllowLists, EmailDomain};

/// Whether the settings allow a user: every condition that is given must hold.
pub fn is_allowed(allow: &Allow, user: &ProviderUser) -> bool {
    match allow {
        Allow::Anyone => true,
        Allow::Listed(lists) => meets(lists, user),
    }
}

fn meets(lists: &AllowLists, user: &ProviderUser) -> bool {
    let AllowLists {
        emails,
        domains,
        groups,
        users,
    } = lists;
    let has_email_condition = !emails.is_empty() || !domains.is_empty();
    let has_condition = has_email_condition || !groups.is_empty() || !users.is_empty();
    let email = user.email.as_deref();
    has_condition
        && (!has_email_condition || email.is_some_and(|it| is_listed(it, emails, domains)))
        && (groups.is_empty() || contains_any(groups, &user.groups))
        && (users.is_empty() || users.contains(&user.user_id))
}

/// Whether the email or its domain is listed. Case differs only between ASCII letters: other
/// characters that look alike are other characters.
fn is_listed(email: &str, emails: &[String], domains: &[EmailDomain]) -> bool {
    let email = email.to_ascii_lowercase();
    let Some((local, domain)) = email.split_once('@') else {
        return false;
    };
    if local.is_empty() || domain.is_empty() || domain.contains('@') {
        return false;
    }
    emails.contains(&email)
        || domains
            .iter()
            .any(|allowed| matches_domain(allowed, domain))
}

/// Whether a whole domain is the one that is allowed, or a name below it.
fn matches_domain(allowed: &EmailDomain, domain: &str) -> bool {
    match allowed {
        EmailDomain::Exact(name) => domain == name,
        EmailDomain::Subdomains(parent) => {
            let below = domain.strip_suffix(parent.as_str());
            let label = below.and_then(|below| below.strip_suffix('.'));
            !parent.is_empty() && label.is_some_and(|label| !label.is_empty())
        }
    }
}

fn contains_any(allowed: &[String], groups: &[String]) -> bool {
    groups
        .iter()
        .any(|group| !group.is_empty() && allowed.contains(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(email: Option<&str>, groups: &[&str], id: &str) -> ProviderUser {
        ProviderUser {
            user_id: id.to_owned(),
            email: email.map(str::to_owned),
            name: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            roles: Vec::new(),
            scopes: Vec::new(),
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn by_email(emails: &[&str], domains: &[EmailDomain]) -> Allow {
        Allow::Listed(AllowLists {
            emails: texts(emails),
            domains: domains.to_vec(),
            ..AllowLists::default()
        })
    }

    #[test]
    fn email_is_compared_whole_and_without_case() {
        let allow = by_email(&["ann@example.com"], &[]);
        for (email, expected) in [
            (Some("ann@example.com"), true),
            (Some("ANN@Example.COM"), true),
            (Some("bob@example.com"), false),
            (Some("ann@example.com "), false),
            (Some(" ann@example.com"), false),
            (Some("ann@example.com."), false),
            (Some("ann@example.com@evil.example"), false),
            (Some("evil@ann@example.com"), false),
            (Some("xann@example.com"), false),
            (Some(""), false),
            // An unverified email is none.
            (None, false),
        ] {
            assert_eq!(
                is_allowed(&allow, &user(email, &[], "1")),
                expected,
                "{email:?}"
            );
        }
    }

    #[test]
    fn domain_is_the_whole_part_after_the_only_at_sign() {
        let exact = EmailDomain::Exact("kiosk.example".to_owned());
        let allow = by_email(&[], &[exact]);
        for (email, expected) in [
            ("ann@kiosk.example", true),
            ("ann@KIOSK.EXAMPLE", true),
            // The first letter is the Kelvin sign, whose lower case is `k`.
            ("ann@\u{212a}iosk.example", false),
            ("ann@sub.kiosk.example", false),
            ("ann@evilkiosk.example", false),
            ("ann@kiosk.example.evil.example", false),
            ("ann@kiosk.example@evil.example", false),
            ("ann@evil.example@kiosk.example", false),
            ("\"ann@evil\"@kiosk.example", false),
            ("@kiosk.example", false),
            ("ann@", false),
            ("kiosk.example", false),
            ("ann@kiosk.example\u{0}", false),
        ] {
            let user = user(Some(email), &[], "1");
            assert_eq!(is_allowed(&allow, &user), expected, "{email}");
        }
    }

    #[test]
    fn wildcard_means_subdomains_only() {
        let allow = by_email(&[], &[EmailDomain::Subdomains("example.com".to_owned())]);
        for (email, expected) in [
            ("ann@eu.example.com", true),
            ("ann@a.b.example.com", true),
            ("ann@EU.Example.com", true),
            ("ann@example.com", false),
            ("ann@.example.com", false),
            ("ann@evilexample.com", false),
            ("ann@evil.example@eu.example.com", false),
            ("@eu.example.com", false),
            ("ann@eu.example.com.evil.example", false),
        ] {
            let user = user(Some(email), &[], "1");
            assert_eq!(is_allowed(&allow, &user), expected, "{email}");
        }
    }

    #[test]
    fn groups_and_users_are_compared_exactly() {
        let allow = Allow::Listed(AllowLists {
            groups: texts(&["staff", "org:ACME", ""]),
            ..AllowLists::default()
        });
        for (groups, expected) in [
            (&["staff"] as &[&str], true),
            (&["other", "org:ACME"], true),
            (&["Staff"], false),
            (&["staff "], false),
            (&["org:acme"], false),
            (&["staffing"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(
                is_allowed(&allow, &user(None, groups, "1")),
                expected,
                "{groups:?}"
            );
        }
        let allow = Allow::Listed(AllowLists {
            users: texts(&["42"]),
            ..AllowLists::default()
        });
        for (id, expected) in [
            ("42", true),
            ("042", false),
            ("corp:42", false),
            ("4", false),
        ] {
            assert_eq!(is_allowed(&allow, &user(None, &[], id)), expected, "{id}");
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let allow = Allow::Listed(AllowLists {
            emails: texts(&["bob@other.example"]),
            domains: vec![EmailDomain::Exact("example.com".to_owned())],
            groups: texts(&["staff"]),
            users: texts(&["1", "2"]),
        });
        for (email, groups, id, expected) in [
            (Some("ann@example.com"), &["staff"] as &[&str], "1", true),
            // Emails and domains are one condition.
            (Some("bob@other.example"), &["staff"], "2", true),
            (Some("ann@other.example"), &["staff"], "1", false),
            (None, &["staff"], "1", false),
            (Some("ann@example.com"), &["guests"], "1", false),
            (Some("ann@example.com"), &["staff"], "3", false),
        ] {
            let user = user(email, groups, id);
            assert_eq!(is_allowed(&allow, &user), expected, "{user:?}");
        }
    }

    #[test]
    fn lists_without_a_condition_allow_no_user() {
        let user = user(Some("ann@example.com"), &["staff"], "1");
        assert!(!is_allowed(&Allow::Listed(AllowLists::default()), &user));
        assert!(is_allowed(&Allow::Anyone, &user));
    }
}
