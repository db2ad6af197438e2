//! Verification of tokens: form, issuer, audience, signature, claims, and last the time.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::claims::Payload;
use super::jws::{Jws, SignatureStatus, TokenUse};
use super::{Claims, Key, KeySource, TokenSource, Tokens, TrustedIssuer};
use crate::auth::session::Millis;

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedToken {
    pub(crate) claims: Arc<Claims>,
    /// Start of validity, checked again on later use because the clock may be set back.
    pub(crate) not_before: Millis,
}

/// Reason why a token is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VerifyError {
    /// Invalid, with the reason for the log.
    Invalid(&'static str),
    /// Valid except for the time.
    Expired(Arc<Claims>),
    /// The key is unknown; the trusted issuers with these indices may have newer keys.
    UnknownKey(Vec<usize>),
}

impl From<&'static str> for VerifyError {
    fn from(reason: &'static str) -> VerifyError {
        VerifyError::Invalid(reason)
    }
}

/// The issuer that a token claims.
#[derive(Clone, Copy)]
enum TokenIssuer<'a> {
    Own(&'a Tokens),
    Trusted(usize, &'a TrustedIssuer),
}

impl Tokens {
    /// Verifies a token. `fetched` returns the keys that were fetched for a trusted issuer.
    pub(crate) fn verify(
        &self,
        token: &str,
        now: Millis,
        fetched: impl Fn(usize) -> Arc<Vec<Key>>,
    ) -> Result<VerifiedToken, VerifyError> {
        let jws = Jws::parse(token, TokenUse::Access)?;
        let payload = Payload::parse(&jws.payload)?;
        let issuer = payload.issuer()?;
        let mut invalid = "the issuer is not known";
        let mut unknown = Vec::new();
        // An issuer may be trusted for several audiences, each with its own keys and rules.
        for candidate in self.matching_issuers(issuer) {
            match self.verify_with(&jws, &payload, candidate, &fetched, now) {
                Err(VerifyError::Invalid(reason)) => invalid = reason,
                Err(VerifyError::UnknownKey(indices)) => unknown.extend(indices),
                result => return result,
            }
        }
        if unknown.is_empty() {
            return Err(VerifyError::Invalid(invalid));
        }
        Err(VerifyError::UnknownKey(unknown))
    }

    fn matching_issuers<'a>(&'a self, issuer: &str) -> impl Iterator<Item = TokenIssuer<'a>> {
        let trusted = self.trusted.iter().enumerate();
        std::iter::once(TokenIssuer::Own(self))
            .chain(trusted.map(|(index, trusted)| TokenIssuer::Trusted(index, trusted)))
            .filter(move |candidate| candidate.issuer() == issuer)
    }

    fn verify_with(
        &self,
        jws: &Jws<'_>,
        payload: &Payload,
        candidate: TokenIssuer<'_>,
        fetched: &impl Fn(usize) -> Arc<Vec<Key>>,
        now: Millis,
    ) -> Result<VerifiedToken, VerifyError> {
        if !payload.is_for(candidate.audience())? {
            return Err("the token is for another audience".into());
        }
        if !candidate.allows(jws) {
            return Err("the algorithm is not allowed for the issuer".into());
        }
        let signature = match candidate {
            TokenIssuer::Own(_) => jws.verify(&self.verifying),
            TokenIssuer::Trusted(index, trusted) => match &trusted.keys {
                KeySource::File(set) => jws.verify(&set.keys),
                KeySource::Url(_) | KeySource::Discovered => match jws.verify(&fetched(index)) {
                    SignatureStatus::UnknownKey => {
                        return Err(VerifyError::UnknownKey(vec![index]));
                    }
                    signature => signature,
                },
            },
        };
        if signature != SignatureStatus::Valid {
            return Err("no key of the issuer made the signature".into());
        }
        self.read_claims(jws, payload, candidate, now)
    }

    /// Reads the claims of a token with a valid signature.
    fn read_claims(
        &self,
        jws: &Jws<'_>,
        payload: &Payload,
        candidate: TokenIssuer<'_>,
        now: Millis,
    ) -> Result<VerifiedToken, VerifyError> {
        let expires_at = payload.date("exp")?.ok_or("`exp` is missing")?;
        let issued_at = payload.date("iat")?;
        let not_before = issued_at.max(payload.date("nbf")?).unwrap_or(0);
        let leeway = self.leeway_millis();
        if not_before > now.saturating_add(leeway) {
            return Err("`nbf` or `iat` is in the future".into());
        }
        let claims = Arc::new(candidate.build_claims(jws, payload, issued_at, expires_at)?);
        // The time is checked last, because only a valid token is reported as expired.
        if now >= expires_at.saturating_add(leeway) {
            return Err(VerifyError::Expired(claims));
        }
        Ok(VerifiedToken { claims, not_before })
    }

    pub(crate) fn leeway_millis(&self) -> Millis {
        Millis::try_from(self.leeway.as_millis()).unwrap_or(Millis::MAX)
    }
}

impl TokenIssuer<'_> {
    fn issuer(&self) -> &str {
        match self {
            TokenIssuer::Own(tokens) => &tokens.issuer,
            TokenIssuer::Trusted(_, trusted) => &trusted.issuer,
        }
    }

    fn audience(&self) -> &str {
        match self {
            TokenIssuer::Own(tokens) => &tokens.audience,
            TokenIssuer::Trusted(_, trusted) => &trusted.audience,
        }
    }

    /// Whether the algorithm is allowed. Own keys are each bound to one; those of other issuers are
    /// restricted by the configuration.
    fn allows(&self, jws: &Jws<'_>) -> bool {
        match self {
            TokenIssuer::Own(_) => true,
            TokenIssuer::Trusted(_, trusted) => trusted.algorithms.contains(&jws.algorithm),
        }
    }

    fn build_claims(
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
            source: TokenSource::Own,
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
            TokenIssuer::Own(_) => Ok(Claims {
                user: payload.user("sub")?.into_owned(),
                session: Some(payload.session()?),
                email: payload.email("email")?,
                ..claims
            }),
            TokenIssuer::Trusted(index, trusted) => {
                let names = &trusted.claims;
                let user = payload.user(&names.user)?;
                if trusted.reserved_prefixes.cover(&user) {
                    return Err("the user begins with the prefix of another source");
                }
                let session = trusted.require_session.then(|| payload.session());
                Ok(Claims {
                    source: TokenSource::Trusted(*index),
                    user: format!("{}{user}", trusted.user_prefix),
                    session: session.transpose()?,
                    email: payload.email(&names.email)?,
                    roles: payload.string_list(&names.roles, &[','])?,
                    scopes: payload.string_list(&names.scopes, &[])?,
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
