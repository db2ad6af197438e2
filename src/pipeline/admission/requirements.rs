//! What a route requires of the user and of their sign-in.

use std::time::Duration;

use super::{Admission, Identity, Principal};
use crate::auth::session::{Millis, Session};
use crate::limits::Decision;
use crate::rejection::{
    DisclosedDetails, Reason, Refusal, Rejection, RejectionDetails, RequiredSignIn,
};
use crate::routing::{Requirements, SignInRequirements, UnmetSignIn};

impl Admission<'_> {
    /// Checks a caller. Roles, scopes and providers come first: another sign-in would not help.
    pub(super) fn check_requirements(
        &self,
        require: &Requirements,
        identity: &Identity,
        decisions: &[Decision],
    ) -> Result<(), Rejection> {
        check_permissions(require, identity, decisions)?;
        let Some(sign_in) = &require.sign_in else {
            return Ok(());
        };
        let session = identity.session().map(AsRef::as_ref);
        self.check_sign_in(sign_in, session, identity.confirmed_at)
            .map_err(|unmet| Rejection {
                decisions: decisions.to_vec(),
                caller: Some(identity.principal.clone()),
                ..reject_sign_in(sign_in, unmet)
            })
    }

    /// Whether a caller meets the requirements.
    pub(super) fn is_admitted(&self, require: &Requirements, identity: &Identity) -> bool {
        let session = identity.session().map(AsRef::as_ref);
        require.is_met_by(identity.roles(), identity.scopes())
            && require.sign_in.as_ref().is_none_or(|sign_in| {
                let checked = self.check_sign_in(sign_in, session, identity.confirmed_at);
                checked.is_ok()
            })
    }

    /// Whether the limits with identity may be charged with the look-up of a session: its sign-in is
    /// known to meet the requirements. It does not change during the session.
    pub(super) fn meets_sign_in(
        &self,
        require: &Requirements,
        session: Option<&Session>,
        now: Millis,
    ) -> bool {
        require.sign_in.as_ref().is_none_or(|sign_in| {
            session.is_some() && self.check_sign_in(sign_in, session, now).is_ok()
        })
    }

    fn check_sign_in(
        &self,
        sign_in: &SignInRequirements,
        session: Option<&Session>,
        now: Millis,
    ) -> Result<(), UnmetSignIn> {
        sign_in.check(session, self.snapshot.settings.tokens.leeway, now)
    }
}

fn reject_sign_in(sign_in: &SignInRequirements, unmet: UnmetSignIn) -> Rejection {
    let (refusal, reason) = match unmet {
        UnmetSignIn::Provider => {
            return Rejection::new(Refusal::Forbidden, Reason::OtherProvider);
        }
        UnmetSignIn::Acr => (Refusal::InsufficientAuthentication, Reason::AcrNotMet),
        UnmetSignIn::Age => (Refusal::InsufficientAuthentication, Reason::SignInTooOld),
    };
    let required = RequiredSignIn {
        acr: sign_in.acr.clone(),
        max_age: sign_in.max_age.as_ref().map(Duration::as_secs),
    };
    Rejection {
        disclosed: Some(Box::new(DisclosedDetails {
            required_sign_in: Some(required),
            ..DisclosedDetails::default()
        })),
        ..Rejection::new(refusal, reason)
    }
}

fn check_permissions(
    require: &Requirements,
    identity: &Identity,
    decisions: &[Decision],
) -> Result<(), Rejection> {
    if require.is_met_by(identity.roles(), identity.scopes()) {
        return Ok(());
    }
    let scopes = require.scopes.iter().map(String::as_str);
    let missing: Vec<&str> = scopes
        .filter(|scope| !identity.scopes().iter().any(|own| own == scope))
        .collect();
    let lacks_scope = !missing.is_empty();
    let lacks_role = !require.has_required_role(identity.roles());
    let details = RejectionDetails {
        role: lacks_role.then(|| require.roles.join(",")),
        scope: lacks_scope.then(|| missing.join(" ")),
        ..RejectionDetails::default()
    };
    Err(Rejection {
        decisions: decisions.to_vec(),
        disclosed: lacks_scope.then(|| {
            Box::new(DisclosedDetails {
                required_scope: Some(require.scopes.join(" ")),
                ..DisclosedDetails::default()
            })
        }),
        caller: Some(identity.principal.clone()),
        details: Some(Box::new(details)),
        ..Rejection::new(
            if lacks_scope {
                Refusal::InsufficientScope
            } else {
                Refusal::Forbidden
            },
            missing_reason(lacks_scope, identity),
        )
    })
}

fn missing_reason(lacks_scope: bool, identity: &Identity) -> Reason {
    match (lacks_scope, &identity.principal) {
        (true, Principal::Session(_)) => Reason::UserLacksScope,
        (true, Principal::Token(_)) => Reason::TokenLacksScope,
        (true, Principal::ApiKey(_)) => Reason::ApiKeyLacksScope,
        (false, Principal::ApiKey(_)) => Reason::ApiKeyLacksRole,
        (false, _) => Reason::UserLacksRole,
    }
}
