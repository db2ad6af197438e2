//! Requirements of a route on the sign-in of a session (step-up authentication).

use std::time::Duration;

use crate::auth::session::{Millis, Session};

/// Requirements on how and when the user of a session has signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignInRequirements {
    /// Names of providers, at one of which the user signed in; empty for any sign-in.
    pub providers: Vec<String>,
    /// Authentication contexts, of which the sign-in had one; empty for any.
    pub acr: Vec<String>,
    /// Maximum age of the authentication.
    pub max_age: Option<Duration>,
}

/// The requirement that a sign-in does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmetSignIn {
    /// Another sign-in at the same provider does not help.
    Provider,
    Acr,
    Age,
}

impl SignInRequirements {
    /// Checks the session of a request; a token without session meets no requirement.
    ///
    /// # Errors
    /// The first requirement that is not met.
    pub fn check(
        &self,
        session: Option<&Session>,
        leeway: Duration,
        now: Millis,
    ) -> Result<(), UnmetSignIn> {
        let sign_in = session.and_then(|session| session.provider.as_deref());
        if !self.providers.is_empty() {
            let provider = sign_in.map(|sign_in| &*sign_in.provider);
            let is_one = provider.is_some_and(|name| self.providers.iter().any(|it| it == name));
            is_one.then_some(()).ok_or(UnmetSignIn::Provider)?;
        }
        if !self.acr.is_empty() {
            let acr = sign_in.and_then(|sign_in| sign_in.acr.as_deref());
            let is_one = acr.is_some_and(|acr| self.acr.iter().any(|it| it == acr));
            is_one.then_some(()).ok_or(UnmetSignIn::Acr)?;
        }
        if let Some(max_age) = self.max_age {
            let latest = max_age.saturating_add(leeway).as_millis();
            let age = session.map(|session| now.saturating_sub(session.authenticated_at()));
            let is_recent = age.is_some_and(|age| u128::from(age) <= latest);
            is_recent.then_some(()).ok_or(UnmetSignIn::Age)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    const LEEWAY: Duration = Duration::from_secs(5);
    /// When each session of the tests was opened.
    const SIGNED_IN: Millis = 1_000_000;

    fn session(provider: Option<(&str, Option<&str>, Millis)>) -> Session {
        let provider = provider.map(|(name, acr, at)| {
            json!({"provider": name, "subject": "1", "authenticated_at": at, "acr": acr})
        });
        let session = json!({
            "id": "00".repeat(32), "user": "u", "email": "", "ip": "127.0.0.1",
            "created_at": SIGNED_IN, "expires_at": 2 * SIGNED_IN, "provider": provider,
        });
        serde_json::from_value(session).unwrap()
    }

    fn require(providers: &[&str], acr: &[&str], max_age: Option<u64>) -> SignInRequirements {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        SignInRequirements {
            providers: owned(providers),
            acr: owned(acr),
            max_age: max_age.map(Duration::from_secs),
        }
    }

    #[test]
    fn each_requirement_is_checked() {
        use UnmetSignIn::{Acr, Age, Provider};
        let password = session(None);
        let corp = session(Some(("corp", Some("mfa"), SIGNED_IN)));
        let plain = session(Some(("corp", None, SIGNED_IN)));
        let at_both = require(&["github", "corp"], &[], None);
        let at_github = require(&["github"], &[], None);
        let strong = require(&[], &["phr", "mfa"], None);
        let stronger = require(&[], &["phr"], None);
        let recent = require(&[], &[], Some(60));
        let all = require(&["corp"], &["mfa"], Some(60));
        for (requirements, session, expected) in [
            (&at_both, Some(&corp), Ok(())),
            (&at_github, Some(&corp), Err(Provider)),
            (&at_both, Some(&password), Err(Provider)),
            (&at_both, None, Err(Provider)),
            (&strong, Some(&corp), Ok(())),
            (&stronger, Some(&corp), Err(Acr)),
            (&strong, Some(&plain), Err(Acr)),
            (&strong, Some(&password), Err(Acr)),
            (&strong, None, Err(Acr)),
            (&recent, Some(&password), Ok(())),
            (&recent, Some(&corp), Ok(())),
            (&recent, None, Err(Age)),
            (&all, Some(&corp), Ok(())),
            (&all, Some(&plain), Err(Acr)),
            (&all, Some(&password), Err(Provider)),
        ] {
            let outcome = requirements.check(session, LEEWAY, SIGNED_IN);
            assert_eq!(outcome, expected, "{requirements:?} {session:?}");
        }
    }

    #[test]
    fn age_counts_from_the_authentication_with_leeway() {
        let recent = require(&[], &[], Some(60));
        for (authenticated_at, now, is_recent) in [
            // At the sign-in; the border is exact.
            (SIGNED_IN, SIGNED_IN + 65_000, true),
            (SIGNED_IN, SIGNED_IN + 65_001, false),
            // The provider had authenticated the user before.
            (SIGNED_IN - 60_000, SIGNED_IN + 5_000, true),
            (SIGNED_IN - 60_000, SIGNED_IN + 5_001, false),
            // Its clock is ahead.
            (SIGNED_IN + 9_000, SIGNED_IN, true),
            (0, SIGNED_IN, false),
            (Millis::MAX, SIGNED_IN, true),
        ] {
            let session = session(Some(("corp", None, authenticated_at)));
            let outcome = recent.check(Some(&session), LEEWAY, now);
            assert_eq!(outcome.is_ok(), is_recent, "{authenticated_at} {now}");
        }
        let endless = SignInRequirements {
            max_age: Some(Duration::MAX),
            ..SignInRequirements::default()
        };
        assert_eq!(
            endless.check(Some(&session(None)), LEEWAY, Millis::MAX),
            Ok(())
        );
    }
}
