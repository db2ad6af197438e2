//! Kinds of credentials, as routes accept and logs name them.

/// What a credential is, whatever header carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialType {
    /// A session token, in the cookie or in `Authorization: Session`.
    Session,
    /// A bearer token: an access token of the gateway, or a token of another issuer.
    Token,
    ApiKey,
}

impl CredentialType {
    pub const ALL: [CredentialType; 3] = [
        CredentialType::Session,
        CredentialType::Token,
        CredentialType::ApiKey,
    ];

    /// The name in the configuration and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialType::Session => "session",
            CredentialType::Token => "token",
            CredentialType::ApiKey => "api_key",
        }
    }

    fn bit(self) -> u8 {
        match self {
            CredentialType::Session => 1,
            CredentialType::Token => 1 << 1,
            CredentialType::ApiKey => 1 << 2,
        }
    }
}

/// The types that a route accepts; a credential of another type is treated as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedCredentials(u8);

impl AcceptedCredentials {
    pub const ALL: AcceptedCredentials = AcceptedCredentials(u8::MAX);

    /// Whether a credential of this type may decide.
    pub fn includes(self, credential: CredentialType) -> bool {
        self.0 & credential.bit() != 0
    }
}

impl FromIterator<CredentialType> for AcceptedCredentials {
    fn from_iter<I: IntoIterator<Item = CredentialType>>(types: I) -> AcceptedCredentials {
        let bits = types.into_iter().map(CredentialType::bit);
        AcceptedCredentials(bits.fold(0, |all, bit| all | bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_types_are_included() {
        for listed in [
            &[][..],
            &CredentialType::ALL[..1],
            &CredentialType::ALL[1..],
        ] {
            let accepted: AcceptedCredentials = listed.iter().copied().collect();
            for one in CredentialType::ALL {
                assert_eq!(accepted.includes(one), listed.contains(&one), "{listed:?}");
                assert!(AcceptedCredentials::ALL.includes(one));
            }
        }
    }
}
