//! What a bearer token is, by its form alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What decides about a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BearerForm {
    ApiKey,
    /// A signed token (RFC 7519), verified by its signature.
    Jwt,
    /// Any other token; only its issuer can read it.
    Opaque,
}

/// Tells the form of a token. `api_key_prefix` is that of the gateway's API keys, where it has any.
///
/// A token with the header of a JWT is never opaque, however malformed the remainder is: otherwise a
/// respelled JWT would be sent to a server that is not its issuer's. An encrypted token, of five parts,
/// is opaque to the gateway.
pub fn bearer_form(token: &str, api_key_prefix: Option<&str>) -> BearerForm {
    let is_api_key = api_key_prefix.is_some_and(|prefix| {
        let rest = token.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with('_'))
    });
    if is_api_key {
        return BearerForm::ApiKey;
    }
    let mut parts = token.split('.');
    let header = parts.next().unwrap_or_default();
    if parts.count() == 2 && is_json_object(header) {
        BearerForm::Jwt
    } else {
        BearerForm::Opaque
    }
}

/// Whether a part is the beginning of a JSON object in base64url.
fn is_json_object(part: &str) -> bool {
    let header = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    header.trim_ascii_start().starts_with(b"{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_follows_prefix_then_parts() {
        use BearerForm::{ApiKey, Jwt, Opaque};
        for (token, form) in [
            ("pck_0123456789abcdef_x", ApiKey),
            ("pck_", ApiKey),
            ("pck_eyJhbGciOiJIUzI1NiJ9.e30.x", ApiKey),
            ("pck", Opaque),
            ("pckx_1", Opaque),
            ("PCK_1", Opaque),
            ("_pck_1", Opaque),
            // {"alg":"HS256"}
            ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln", Jwt),
            ("eyJhbGciOiJIUzI1NiJ9.e30.", Jwt),
            ("eyJhbGciOiJIUzI1NiJ9..", Jwt),
            ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln=", Jwt),
            ("eyJhbGciOiJIUzI1NiJ9.~.~", Jwt),
            // White space before the object, and an object that is not complete.
            ("IHt9.e30.c2ln", Jwt),
            ("e30.e30.c2ln", Jwt),
            ("eyJh.e30.c2ln", Jwt),
            // Two parts, four, and the five of an encrypted token.
            ("eyJhbGciOiJIUzI1NiJ9.e30", Opaque),
            ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln.x", Opaque),
            ("eyJhbGciOiJkaXIifQ..aXY.Y3Q.dGFn", Opaque),
            // A header that is not base64url, or not an object.
            ("eyJhbGciOiJIUzI1NiJ9=.e30.c2ln", Opaque),
            ("ya29.a0AfH6SMB.x", Opaque),
            ("W10.e30.c2ln", Opaque),
            ("..", Opaque),
            ("a.b.c", Opaque),
            ("opaque", Opaque),
            ("", Opaque),
        ] {
            assert_eq!(bearer_form(token, Some("pck")), form, "{token}");
            if form != ApiKey {
                assert_eq!(bearer_form(token, None), form, "{token}");
            }
        }
        assert_eq!(bearer_form("pck_1", None), Opaque);
        assert_eq!(bearer_form("a_b_1", Some("a_b")), ApiKey);
    }
}
