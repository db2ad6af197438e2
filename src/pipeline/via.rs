//! `Via` (RFC 9110, section 7.6.3): marks forwarded messages, so that the gateway recognizes a
//! request that loops.

use http::Version;
use http::header::{self, HeaderValue, InvalidHeaderValue};

use super::fields::{FieldKind, Fields};
use super::own_field::OwnField;

/// The gateway's entry in `Via`: the protocol in which a message was received, and a pseudonym.
#[derive(Debug)]
pub struct Via {
    pseudonym: String,
    http10: OwnField,
    http11: OwnField,
    http2: OwnField,
}

impl Via {
    /// Generates a pseudonym: one for this process, so that gateways in a row differ, and random, so
    /// that it reveals nothing about the machine.
    pub fn pseudonym() -> String {
        format!("portcullis-{:016x}", rand::random::<u64>())
    }

    /// # Errors
    /// The pseudonym does not fit into a header.
    pub fn new(pseudonym: &str) -> Result<Via, InvalidHeaderValue> {
        let of = |protocol: &str| {
            let value = HeaderValue::try_from(format!("{protocol} {pseudonym}"))?;
            Ok(OwnField::new(header::VIA, value))
        };
        Ok(Via {
            pseudonym: pseudonym.to_owned(),
            http10: of("1.0")?,
            http11: of("1.1")?,
            http2: of("2")?,
        })
    }

    /// Whether a request has passed this gateway before.
    pub(crate) fn is_in(&self, fields: Fields<'_>) -> bool {
        let mut entries = fields.all(FieldKind::Via);
        entries.any(|entry| memchr::memmem::find(entry, self.pseudonym.as_bytes()).is_some())
    }

    /// The entry of a message that was received in this version.
    pub(crate) fn entry(&self, received: Version) -> &OwnField {
        match received {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 => &self.http10,
            _ => &self.http11,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use http::HeaderMap;

    use super::*;
    use crate::pipeline::fields::{Field, FieldList};

    fn is_in(via: &Via, fields: &HeaderMap) -> bool {
        let list: FieldList<'_> = fields.iter().map(Field::from).collect();
        via.is_in(Fields::new(&list))
    }

    #[test]
    fn gateway_recognizes_only_itself() {
        let (ours, other) = (Via::pseudonym(), Via::pseudonym());
        let (ours, other) = (Via::new(&ours).unwrap(), Via::new(&other).unwrap());
        let mut fields = HeaderMap::new();
        assert!(!is_in(&ours, &fields));
        fields.insert(
            header::VIA,
            HeaderValue::from_static("1.0 fred, 1.1 p.example.net (x)"),
        );
        fields.append(header::VIA, other.entry(Version::HTTP_2).value.clone());
        assert!(!is_in(&ours, &fields));
        fields.append(header::VIA, ours.entry(Version::HTTP_11).value.clone());
        assert!(is_in(&ours, &fields) && is_in(&other, &fields));
        // A proxy may have joined them, with a comment.
        let joined: Vec<&str> = fields
            .get_all(header::VIA)
            .iter()
            .map(|it| it.to_str().unwrap())
            .collect();
        let joined = HeaderValue::try_from(joined.join(",") + " (nginx), 1.1 last").unwrap();
        fields.insert(header::VIA, joined);
        assert!(is_in(&ours, &fields) && is_in(&other, &fields));
    }
}
