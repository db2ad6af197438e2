//! Whether a token is good: its form, its issuer, its signature, what it says, and last its time.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::claims::Payload;
use super::jws::{Jws, Signature};
use super::{ClaimNames, Claims, Key, KeySource, Tokens, TrustedIssuer};
use crate::auth::session::Millis;

/// A token that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) claims: Arc<Claims>,
    /// Before this it is not good yet, whatever was found now: a clock may be set back.
    pub(crate) not_before: Millis,
}

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// For the log.
    Invalid(&'static str),
    /// Good in every respect but its time.
    Expired(Arc<Claims>),
    /// The trusted issuers with these indices may have newer keys than those that were tried.
    UnknownKey(Vec<usize>),
}

impl From<&'static str> for Failure {
    fn from(reason: &'static str) -> Failure {
        Failure::Invalid(reason)
    }
}

/// By whom a token claims to be.
#[derive(Clone, Copy)]
enum Whose<'a> {
    Ours(&'a Tokens),
    Trusted(usize, &'a TrustedIssuer),
}

impl Tokens {
    /// Checks a token. `fetched` gives the keys that were fetched for a trusted issuer.
    pub(crate) fn check(
        &self,
        token: &str,
        now: Millis,
        fetched: impl Fn(usize) -> Arc<Vec<Key>>,
    ) -> Result<Verified, Failure> {
        let jws = Jws::parse(token)?;
        let payload = Payload::parse(&jws.payload)?;
        let issuer = payload.issuer()?;
        let mut invalid = "the issuer is not known";
        let mut unknown = Vec::new();
        // An issuer may be trusted for several audiences, each with its own keys and rules.
        for whose in self.entries_of(issuer) {
            match self.judge(&jws, &payload, whose, &fetched, now) {
                Err(Failure::Invalid(reason)) => invalid = reason,
                Err(Failure::UnknownKey(indices)) => unknown.extend(indices),
                decided => return decided,
            }
        }
        if unknown.is_empty() {
            return Err(Failure::Invalid(invalid));
        }
        Err(Failure::UnknownKey(unknown))
    }

    fn entries_of<'a>(&'a self, issuer: &str) -> impl Iterator<Item = Whose<'a>> {
        let trusted = self.trusted.iter().enumerate();
        std::iter::once(Whose::Ours(self))
            .chain(trusted.map(|(index, trusted)| Whose::Trusted(index, trusted)))
            .filter(move |whose| whose.issuer() == issuer)
    }

    fn judge(
        &self,
        jws: &Jws<'_>,
        payload: &Payload,
        whose: Whose<'_>,
        fetched: &impl Fn(usize) -> Arc<Vec<Key>>,
        now: Millis,
    ) -> Result<Verified, Failure> {
        if !payload.is_for(whose.audience())? {
            return Err("the token is for another audience".into());
        }
        if !whose.allows(jws) {
            return Err("the algorithm is not allowed for the issuer".into());
        }
        let signature = match whose {
            Whose::Ours(_) => jws.check(&self.verifying),
            Whose::Trusted(index, trusted) => match &trusted.keys {
                KeySource::File(set) => jws.check(&set.keys),
                KeySource::Url(_) => match jws.check(&fetched(index)) {
                    Signature::UnknownKey => return Err(Failure::UnknownKey(vec![index])),
                    signature => signature,
                },
            },
        };
        if signature != Signature::Genuine {
            return Err("no key of the issuer made the signature".into());
        }
        self.read(jws, payload, whose, now)
    }

    /// Reads the claims of a token whose signature is genuine.
    fn read(
        &self,
        jws: &Jws<'_>,
        payload: &Payload,
        whose: Whose<'_>,
        now: Millis,
    ) -> Result<Verified, Failure> {
        let expires_at = payload.date("exp")?.ok_or("`exp` is missing")?;
        let issued_at = payload.date("iat")?;
        let not_before = issued_at.max(payload.date("nbf")?).unwrap_or(0);
        let leeway = self.leeway_millis();
        if not_before > now.saturating_add(leeway) {
            return Err("`nbf` or `iat` is in the future".into());
        }
        let claims = Arc::new(whose.claims(jws, payload, issued_at, expires_at)?);
        // The time comes last: "expired" is told only of a token that was good.
        if now >= expires_at.saturating_add(leeway) {
            return Err(Failure::Expired(claims));
        }
        Ok(Verified { claims, not_before })
    }

    pub(crate) fn leeway_millis(&self) -> Millis {
        Millis::try_from(self.leeway.as_millis()).unwrap_or(Millis::MAX)
    }
}

impl Whose<'_> {
    fn issuer(&self) -> &str {
        match self {
            Whose::Ours(tokens) => &tokens.issuer,
            Whose::Trusted(_, trusted) => &trusted.issuer,
        }
    }

    fn audience(&self) -> &str {
        match self {
            Whose::Ours(tokens) => &tokens.audience,
            Whose::Trusted(_, trusted) => &trusted.audience,
        }
    }

    /// Our own keys are each bound to an algorithm; an issuer's are narrowed by the configuration.
    fn allows(&self, jws: &Jws<'_>) -> bool {
        match self {
            Whose::Ours(_) => true,
            Whose::Trusted(_, trusted) => trusted.algorithms.contains(&jws.algorithm),
        }
    }

    fn claims(
        &self,
        jws: &Jws<'_>,
        payload: &Payload,
        issued_at: Option<Millis>,
        expires_at: Millis,
    ) -> Result<Claims, &'static str> {
        let blacklist_key = match payload.token_id()? {
            Some(id) => id.to_owned(),
            None => hex::encode(Sha256::digest(jws.message)),
        };
        let claims = Claims {
            trusted: None,
            issuer: self.issuer().to_owned(),
            user: String::new(),
            session: None,
            blacklist_key,
            issued_at,
            expires_at,
            email: None,
            roles: Vec::new(),
            scopes: Vec::new(),
            certificate: payload.certificate()?,
        };
        match self {
            Whose::Ours(_) => Ok(Claims {
                user: payload.user("sub")?.into_owned(),
                session: Some(payload.session()?),
                email: payload.email("email")?,
                ..claims
            }),
            Whose::Trusted(index, trusted) => {
                let ClaimNames {
                    user,
                    email,
                    roles,
                    scopes,
                } = &trusted.claims;
                Ok(Claims {
                    trusted: Some(*index),
                    user: format!("{}{}", trusted.user_prefix, payload.user(user)?),
                    session: trusted
                        .require_session
                        .then(|| payload.session())
                        .transpose()?,
                    email: payload.email(email)?,
                    roles: payload.words(roles, &[','])?,
                    scopes: payload.words(scopes, &[])?,
                    ..claims
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod foreign_tests;
