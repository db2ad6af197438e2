//! Header fields of a request as a flat list, in order of arrival. Rules read it whichever engine
//! received the request.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

mod kind;

pub use kind::FieldKind;

/// A header field. It borrows from the head of its message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// As the client spelled it.
    pub name: &'a [u8],
    /// Without the whitespace around it.
    pub value: &'a [u8],
    pub kind: FieldKind,
}

impl<'a> Field<'a> {
    pub fn new(name: &'a [u8], value: &'a [u8]) -> Field<'a> {
        Field {
            name,
            value: value.trim_ascii(),
            kind: FieldKind::of(name),
        }
    }
}

impl<'a> From<(&'a HeaderName, &'a HeaderValue)> for Field<'a> {
    fn from((name, value): (&'a HeaderName, &'a HeaderValue)) -> Field<'a> {
        Field::new(name.as_str().as_bytes(), value.as_bytes())
    }
}

/// Room for the fields of one message; those of most browsers fit without an allocation.
pub type FieldList<'a> = SmallVec<[Field<'a>; 24]>;

/// The fields of a request.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [Field<'a>]);

impl<'a> Fields<'a> {
    pub fn new(fields: &'a [Field<'a>]) -> Fields<'a> {
        Fields(fields)
    }

    pub fn count(self) -> usize {
        self.0.len()
    }

    pub fn has(self, kind: FieldKind) -> bool {
        self.0.iter().any(|field| field.kind == kind)
    }

    /// The value of the first field of a kind.
    pub fn first(self, kind: FieldKind) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// The values of all fields of a kind.
    pub fn all(self, kind: FieldKind) -> impl DoubleEndedIterator<Item = &'a [u8]> + Clone {
        let fields = self.0.iter().filter(move |field| field.kind == kind);
        fields.map(|field| field.value)
    }

    /// The values of all fields of a configured name.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_named = move |field: &&Field<'_>| field.name.eq_ignore_ascii_case(name.as_bytes());
        let fields = self.0.iter().filter(is_named);
        fields.map(|field| field.value)
    }

    /// Names and values.
    pub fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        self.0.iter().map(|field| (field.name, field.value))
    }
}

/// The text of a value, unless it has characters other than ASCII, which have no common encoding
/// (RFC 9110, section 5.5).
pub fn text_of(value: &[u8]) -> Option<&str> {
    value.is_ascii().then(|| str::from_utf8(value).ok())?
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The fields of a test's request.
    pub(crate) fn list<'a>(fields: &[(&'a str, &'a str)]) -> FieldList<'a> {
        let fields = fields.iter();
        fields
            .map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()))
            .collect()
    }

    #[test]
    fn fields_are_found_in_order_of_arrival() {
        let list = list(&[
            ("Cookie", "a=1"),
            ("X-Tenant", " one\t"),
            ("cookie", "b=2"),
            ("x-tenant", "two"),
        ]);
        let fields = Fields::new(&list);
        assert_eq!(fields.first(FieldKind::Cookie), Some(&b"a=1"[..]));
        assert_eq!(fields.first(FieldKind::Host), None);
        let cookies: Vec<&[u8]> = fields.all(FieldKind::Cookie).collect();
        assert_eq!(cookies, [b"a=1", b"b=2"]);
        assert!(fields.has(FieldKind::Cookie) && !fields.has(FieldKind::Host));
        let tenants: Vec<&[u8]> = fields.named("x-tenant").collect();
        assert_eq!(tenants, [b"one", b"two"]);
        assert_eq!(fields.pairs().next(), Some((&b"Cookie"[..], &b"a=1"[..])));
        assert_eq!(fields.count(), 4);
    }

    #[test]
    fn text_is_ascii() {
        assert_eq!(text_of(b"a\tb"), Some("a\tb"));
        assert_eq!(text_of("\u{e9}".as_bytes()), None);
        assert_eq!(text_of(b"\xe9"), None);
    }
}
