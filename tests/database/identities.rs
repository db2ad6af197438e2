//! Identities of users at providers: first sign-ins, links and unlinks, one at a time and at once.

use std::collections::HashSet;

use portcullis::database::{
    AssertedIdentity, Database, FirstSignIn, IdentitySignIn, LinkOutcome, NewUser, UnlinkOutcome,
    User, UserIdentity, UserUpdate, UserUpdateOutcome, WaysToSignIn,
};

use crate::support::{TestDatabase, databases};

const CREATE: FirstSignIn = FirstSignIn {
    create: true,
    link_by_email: false,
};
const JOIN: FirstSignIn = FirstSignIn {
    create: true,
    link_by_email: true,
};
/// A provider with its issuer.
const CORP: (&str, &str) = ("corp", ISSUER);
const ISSUER: &str = "https://id.example.com";
const ALL_WAYS: WaysToSignIn<'static> = WaysToSignIn {
    password: true,
    providers: &[CORP, ("github", ISSUER)],
};

fn corp<'a>(subject: &'a str, email: Option<&'a str>) -> AssertedIdentity<'a> {
    AssertedIdentity {
        provider: "corp",
        issuer: "https://id.example.com",
        subject,
        email,
        name: Some("Ann"),
        roles: &[],
        scopes: &[],
    }
}

async fn add_user(database: &Database, email: &str, password: Option<&str>) -> User {
    let new = NewUser {
        email: email.to_owned(),
        username: None,
        name: None,
        password_hash: password.map(str::to_owned),
        roles: vec!["staff".to_owned()],
        scopes: Vec::new(),
        disabled: false,
    };
    database.create_user(new, 1).await.unwrap().unwrap()
}

async fn sign_in(
    database: &Database,
    asserted: AssertedIdentity<'_>,
    rules: FirstSignIn,
) -> IdentitySignIn {
    database
        .sign_in_identity(&asserted, rules, 100)
        .await
        .unwrap()
}

fn created(outcome: IdentitySignIn) -> (User, UserIdentity) {
    match outcome {
        IdentitySignIn::Created(user, identity) => (user, identity),
        other => panic!("{other:?}"),
    }
}

fn known(outcome: IdentitySignIn) -> (User, UserIdentity) {
    match outcome {
        IdentitySignIn::Known(user, identity) => (user, identity),
        other => panic!("{other:?}"),
    }
}

async fn update(database: &Database, user: &User, change: UserUpdate) {
    let outcome = database.update_user(&user.id, change, 2).await.unwrap();
    assert!(matches!(outcome, UserUpdateOutcome::Changed(_)));
}

#[tokio::test]
async fn first_sign_in_creates_a_user_without_password() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = corp("1", Some("ann@example.com"));
        let (user, identity) = created(sign_in(&database, ann, CREATE).await);
        assert_eq!(
            (user.email.as_str(), user.password_hash.as_deref()),
            ("ann@example.com", None)
        );
        assert_eq!(database.user(&user.id).await.unwrap().as_ref(), Some(&user));
        assert_eq!(
            database.identities_of(&user.id).await.unwrap(),
            std::slice::from_ref(&identity)
        );
        assert_eq!(
            known(sign_in(&database, ann, CREATE).await),
            (user, identity)
        );
    }
}

#[tokio::test]
async fn users_without_email_are_separate_and_have_none() {
    for fixture in databases() {
        let database = fixture.open().await;
        let (one, _) = created(sign_in(&database, corp("1", None), JOIN).await);
        let (two, _) = created(sign_in(&database, corp("2", None), JOIN).await);
        assert_ne!(one.id, two.id);
        assert_eq!((one.email.as_str(), two.email.as_str()), ("", ""));
        assert_eq!(database.user(&one.id).await.unwrap(), Some(one.clone()));
        // Neither an empty text nor the ID is an email that finds the user.
        assert_eq!(database.user_by_email("").await.unwrap(), None);
        // An operator can set one.
        let change = UserUpdate {
            email: Some("one@example.com".to_owned()),
            ..UserUpdate::default()
        };
        update(&database, &one, change).await;
        let found = database.user_by_email("one@example.com").await.unwrap();
        assert_eq!(found.map(|user| user.id), Some(one.id));
    }
}

#[tokio::test]
async fn identity_is_provider_issuer_and_subject() {
    for fixture in databases() {
        let database = fixture.open().await;
        let (user, _) = created(sign_in(&database, corp("1", None), CREATE).await);
        let same = corp("1", None);
        for other in [
            AssertedIdentity {
                provider: "other",
                ..same
            },
            AssertedIdentity {
                issuer: "https://id.example.com/",
                ..same
            },
            AssertedIdentity {
                issuer: "HTTPS://id.example.com",
                ..same
            },
            AssertedIdentity {
                subject: "1 ",
                ..same
            },
            AssertedIdentity {
                subject: "01",
                ..same
            },
        ] {
            let (another, _) = created(sign_in(&database, other, CREATE).await);
            assert_ne!(another.id, user.id, "{other:?}");
        }
        assert_eq!(known(sign_in(&database, same, CREATE).await).0, user);
    }
}

#[tokio::test]
async fn unknown_identity_without_create_joins_or_is_unknown() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = add_user(&database, "ann@example.com", Some("x")).await;
        let strict = FirstSignIn {
            create: false,
            ..CREATE
        };
        let ann = corp("1", Some("ann@example.com"));
        let eve = corp("3", Some("eve@example.com"));
        for (unknown, expected) in [
            (ann, IdentitySignIn::EmailTaken),
            (eve, IdentitySignIn::Unknown),
            (corp("1", None), IdentitySignIn::Unknown),
        ] {
            assert_eq!(sign_in(&database, unknown, strict).await, expected);
        }
        let joining = FirstSignIn {
            create: false,
            ..JOIN
        };
        let bob = corp("2", Some("bob@example.com"));
        assert_eq!(
            sign_in(&database, bob, joining).await,
            IdentitySignIn::Unknown
        );
        let joined = sign_in(&database, ann, joining).await;
        assert!(
            matches!(&joined, IdentitySignIn::Joined(it, _) if *it == user),
            "{joined:?}"
        );
        assert_eq!(known(sign_in(&database, ann, strict).await).0, user);
    }
}

#[tokio::test]
async fn email_of_another_user_is_not_taken_over() {
    for fixture in databases() {
        let database = fixture.open().await;
        add_user(&database, "ann@example.com", Some("x")).await;
        let ann = corp("1", Some("ann@example.com"));
        assert_eq!(
            sign_in(&database, ann, CREATE).await,
            IdentitySignIn::EmailTaken
        );
        // Without a verified email, the user is another one.
        created(sign_in(&database, corp("1", None), JOIN).await);
    }
}

#[tokio::test]
async fn email_joins_neither_disabled_users_nor_those_of_the_provider() {
    for fixture in databases() {
        let database = fixture.open().await;
        let disabled = add_user(&database, "off@example.com", Some("x")).await;
        let change = UserUpdate {
            disabled: Some(true),
            ..UserUpdate::default()
        };
        update(&database, &disabled, change).await;
        let off = corp("1", Some("off@example.com"));
        assert_eq!(
            sign_in(&database, off, JOIN).await,
            IdentitySignIn::EmailTaken
        );

        let (user, _) = created(sign_in(&database, corp("2", Some("ann@example.com")), JOIN).await);
        // Another account at the provider has got the email, at whichever of its tenants.
        for issuer in ["https://id.example.com", "https://other.example.com"] {
            let reused = corp("3", Some("ann@example.com"));
            let reused = AssertedIdentity { issuer, ..reused };
            assert_eq!(
                sign_in(&database, reused, JOIN).await,
                IdentitySignIn::EmailTaken
            );
        }
        let github = AssertedIdentity {
            provider: "github",
            ..corp("2", Some("ann@example.com"))
        };
        let joined = sign_in(&database, github, JOIN).await;
        assert!(matches!(joined, IdentitySignIn::Joined(it, _) if it.id == user.id));
    }
}

#[tokio::test]
async fn mapped_permissions_are_kept_with_the_identity_and_move_the_version() {
    for fixture in databases() {
        let database = fixture.open().await;
        let (user, _) = created(sign_in(&database, corp("1", None), CREATE).await);
        let roles = ["admin".to_owned()];
        let admin = AssertedIdentity {
            roles: &roles,
            ..corp("1", None)
        };
        let (after, identity) = known(sign_in(&database, admin, CREATE).await);
        assert_eq!(
            (after.roles.len(), identity.roles.as_slice()),
            (0, roles.as_slice())
        );
        assert!(after.updated_at > user.updated_at);
        // An operator's change leaves them alone.
        let change = UserUpdate {
            roles: Some(vec!["staff".to_owned()]),
            ..UserUpdate::default()
        };
        update(&database, &user, change).await;
        let kept = database.identities_of(&user.id).await.unwrap();
        assert_eq!(
            kept.first().map(|it| it.roles.as_slice()),
            Some(roles.as_slice())
        );
        // A recheck replaces them, and reports only a change.
        let recheck = async |asserted: AssertedIdentity<'_>| {
            let changed = database.set_identity_permissions(&asserted, 300);
            changed.await.unwrap()
        };
        assert_eq!(recheck(admin).await, None);
        assert_eq!(recheck(corp("1", None)).await, Some(user.id.clone()));
        assert_eq!(recheck(corp("unknown", None)).await, None);
        let (last, identity) = known(sign_in(&database, corp("1", None), CREATE).await);
        assert!(identity.roles.is_empty());
        assert_eq!(last.roles, ["staff"]);
    }
}

#[tokio::test]
async fn concurrent_first_sign_ins_yield_one_user() {
    for fixture in databases() {
        let gateways = two(&fixture).await;
        let attempts = (0..8).map(|number| {
            let database = alternating(&gateways, number);
            tokio::spawn(async move {
                let ann = corp("1", Some("ann@example.com"));
                database.sign_in_identity(&ann, JOIN, 100).await.unwrap()
            })
        });
        let mut users = HashSet::new();
        let mut new = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                IdentitySignIn::Created(user, _) => {
                    new += 1;
                    users.insert(user.id);
                }
                IdentitySignIn::Known(user, _) => drop(users.insert(user.id)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((new, users.len()), (1, 1));
    }
}

#[tokio::test]
async fn concurrent_first_sign_ins_with_one_email_yield_one_user() {
    for fixture in databases() {
        let gateways = two(&fixture).await;
        let attempts = (0..6).map(|number: usize| {
            let database = alternating(&gateways, number);
            tokio::spawn(async move {
                let subject = number.to_string();
                let ann = corp(&subject, Some("ann@example.com"));
                database.sign_in_identity(&ann, JOIN, 100).await.unwrap()
            })
        });
        let mut new = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                IdentitySignIn::Created(..) => new += 1,
                IdentitySignIn::EmailTaken => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(new, 1);
    }
}

#[tokio::test]
async fn identity_is_linked_to_one_user_only() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = add_user(&database, "ann@example.com", Some("x")).await;
        let bob = add_user(&database, "bob@example.com", Some("x")).await;
        let link = async |user: &str| {
            database
                .link_identity(user, &corp("1", None), 5)
                .await
                .unwrap()
        };
        let LinkOutcome::Linked(identity) = link(&ann.id).await else {
            panic!("not linked");
        };
        assert_eq!(identity.last_sign_in_at, None);
        assert_eq!(
            link(&ann.id).await,
            LinkOutcome::AlreadyLinked(identity.clone())
        );
        assert_eq!(link(&bob.id).await, LinkOutcome::Taken);
        assert_eq!(link("nobody").await, LinkOutcome::NoUser);
        assert_eq!(
            known(sign_in(&database, corp("1", None), CREATE).await)
                .0
                .id,
            ann.id
        );

        let unlink = async |user: &str, id: &str| {
            database
                .unlink_identity(user, id, ALL_WAYS, 9)
                .await
                .unwrap()
        };
        assert_eq!(unlink(&bob.id, &identity.id).await, UnlinkOutcome::NotFound);
        assert!(matches!(
            unlink(&ann.id, &identity.id).await,
            UnlinkOutcome::Unlinked(_)
        ));
        assert_eq!(unlink(&ann.id, &identity.id).await, UnlinkOutcome::NotFound);
        // What was unlinked is unknown: it may be linked anew, to another user too.
        assert!(matches!(link(&bob.id).await, LinkOutcome::Linked(_)));
        database.delete_user(&bob.id, 9).await.unwrap();
        assert!(matches!(link(&ann.id).await, LinkOutcome::Linked(_)));
    }
}

#[tokio::test]
async fn number_of_identities_is_bounded() {
    let database = TestDatabase::sqlite().open().await;
    let ann = add_user(&database, "ann@example.com", Some("x")).await;
    for number in 0..33 {
        let subject = number.to_string();
        let outcome = database
            .link_identity(&ann.id, &corp(&subject, None), 5)
            .await;
        let is_linked = matches!(outcome.unwrap(), LinkOutcome::Linked(_));
        assert_eq!(is_linked, number < 32, "{number}");
    }
}

#[tokio::test]
async fn last_way_to_sign_in_cannot_be_unlinked() {
    for fixture in databases() {
        let database = fixture.open().await;
        // (has a password, passwords exist, providers that exist, whether the first of two identities
        // and then the second can be unlinked)
        let none: &[(&str, &str)] = &[];
        for (row, (password, passwords, providers, expected)) in [
            (true, true, &[CORP][..], [true, true]),
            (false, true, &[CORP], [true, false]),
            (true, false, &[CORP], [true, false]),
            (false, true, none, [false, false]),
            (true, true, none, [true, true]),
            // The name has passed to another issuer, at which the identities are unknown.
            (
                false,
                true,
                &[("corp", "https://other.example")],
                [false, false],
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let email = format!("{row}@example.com");
            let user = add_user(&database, &email, password.then_some("x")).await;
            let ways = WaysToSignIn {
                password: passwords,
                providers,
            };
            for (number, expected) in expected.into_iter().enumerate() {
                let name = |number: usize| format!("{row}-{number}");
                for subject in (number..2).map(name) {
                    let asserted = corp(&subject, None);
                    let linked = database.link_identity(&user.id, &asserted, 5);
                    linked.await.unwrap();
                }
                let linked = database.identities_of(&user.id).await.unwrap();
                let subject = name(number);
                let id = linked
                    .into_iter()
                    .find(|it| it.subject == subject)
                    .unwrap()
                    .id;
                let outcome = database
                    .unlink_identity(&user.id, &id, ways, 6)
                    .await
                    .unwrap();
                match expected {
                    true => assert!(
                        matches!(outcome, UnlinkOutcome::Unlinked(_)),
                        "{row} {number}"
                    ),
                    false => assert_eq!(outcome, UnlinkOutcome::Last, "{row} {number}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn concurrent_unlinks_leave_one_identity() {
    for fixture in databases() {
        let gateways = two(&fixture).await;
        let [database, _] = &gateways;
        let ann = add_user(database, "ann@example.com", None).await;
        for number in 0..4 {
            let subject = number.to_string();
            let asserted = corp(&subject, None);
            let linked = database.link_identity(&ann.id, &asserted, 5);
            linked.await.unwrap();
        }
        let linked = database.identities_of(&ann.id).await.unwrap();
        let attempts = linked.into_iter().enumerate().map(|(number, identity)| {
            let (database, user) = (alternating(&gateways, number), ann.id.clone());
            tokio::spawn(async move {
                let unlinked = database.unlink_identity(&user, &identity.id, ALL_WAYS, 6);
                unlinked.await.unwrap()
            })
        });
        let mut last = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            last += usize::from(attempt.await.unwrap() == UnlinkOutcome::Last);
        }
        assert_eq!(last, 1);
        assert_eq!(database.identities_of(&ann.id).await.unwrap().len(), 1);
    }
}

fn alternating([one, other]: &[Database; 2], number: usize) -> Database {
    match number % 2 {
        0 => one.clone(),
        _ => other.clone(),
    }
}

/// Two gateways over one database.
async fn two(fixture: &TestDatabase) -> [Database; 2] {
    [fixture.open().await, fixture.open().await]
}
