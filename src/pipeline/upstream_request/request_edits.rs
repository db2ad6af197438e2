//! The changes to a request by a front proxy that can remove fields, as Envoy can by gRPC.

use http::header::{self, HeaderName};

use super::front_proxy::{FrontProxyHead, credentials};
use super::hygiene::ForbiddenNames;
use crate::pipeline::admission::Permit;
use crate::pipeline::fields::Fields;
use crate::pipeline::header_fields::FieldBuffer;
use crate::routing::NameSet;
use crate::settings::Reloadable;

/// The changes by which the upstream of a front proxy receives of the client's fields what one of the
/// gateway's own would.
#[derive(Debug, Default)]
pub struct RequestEdits {
    /// Fields that replace those of the request.
    pub set: FieldBuffer,
    pub removed: Vec<HeaderName>,
}

impl FrontProxyHead {
    /// The changes to a request with these fields.
    pub fn edits(
        &self,
        permit: &Permit,
        fields: Fields<'_>,
        settings: &Reloadable,
    ) -> RequestEdits {
        let mut edits = RequestEdits::default();
        let all = &settings.identity_header_names;
        let mut written = FieldBuffer::new();
        self.write(all, &mut written);
        let is_credential =
            |name: &HeaderName| [header::COOKIE, header::AUTHORIZATION].contains(name);
        written.retain(|(name, _)| !is_credential(name));
        for (name, value) in written {
            match value.is_empty() {
                true => edits.removed.push(name),
                false => edits.set.push((name, value)),
            }
        }
        edits.replace_credentials(permit, fields, settings);
        edits.remove_forbidden(permit, fields, settings);
        edits
    }
}

impl RequestEdits {
    /// Replaces or removes the credentials that do not pass as they are.
    fn replace_credentials(&mut self, permit: &Permit, fields: Fields<'_>, settings: &Reloadable) {
        for (name, value) in credentials(permit, fields, settings) {
            let (sent, another) = {
                let mut values = fields.named(name.as_str());
                (values.next(), values.next())
            };
            match (value, sent, another) {
                (None, None, _) => {}
                (None, Some(_), _) => self.removed.push(name),
                (Some(value), Some(sent), None) if value.as_bytes() == sent => {}
                (Some(value), _, _) => self.set.push((name, value)),
            }
        }
    }

    /// Removes the fields that the gateway would not forward either.
    fn remove_forbidden(&mut self, permit: &Permit, fields: Fields<'_>, settings: &Reloadable) {
        let provider_token = permit.route.provider_token.iter();
        let edited: NameSet = provider_token.map(|field| field.header.clone()).collect();
        // A front proxy reports the client, as a trusted peer of the gateway does.
        let forbidden = ForbiddenNames::new(&settings.identity_header_names, &edited, true);
        for field in fields.iter().filter(|field| forbidden.contains(field)) {
            let Ok(name) = HeaderName::from_bytes(field.name) else {
                continue;
            };
            let is_set = self.set.iter().any(|(other, _)| *other == name);
            if !is_set && !self.removed.contains(&name) {
                self.removed.push(name);
            }
        }
    }
}
