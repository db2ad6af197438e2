//! Header fields of a message as a flat list, in order of arrival. Rules read it whichever engine
//! received the message.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

mod kind;
mod name_words;

pub use kind::{FieldKind, KindSet};

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

/// The position of a field line in the bytes of its head. A head of 4 GiB is rejected long before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldPosition {
    /// Of the name.
    pub start: u32,
    /// The end of the name.
    pub colon: u32,
    /// Of the value, without the whitespace around it.
    pub value: u32,
    pub value_end: u32,
    /// Behind the line end.
    pub end: u32,
    pub kind: FieldKind,
}

impl FieldPosition {
    pub fn name<'h>(&self, bytes: &'h [u8]) -> &'h [u8] {
        slice(bytes, self.start, self.colon)
    }

    pub fn value<'h>(&self, bytes: &'h [u8]) -> &'h [u8] {
        slice(bytes, self.value, self.value_end)
    }

    /// The field, as rules read it.
    pub fn borrow<'h>(&self, bytes: &'h [u8]) -> Field<'h> {
        Field {
            name: self.name(bytes),
            value: self.value(bytes),
            kind: self.kind,
        }
    }
}

/// The bytes between two positions of a head.
pub fn slice(bytes: &[u8], start: u32, end: u32) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

/// The fields of a message.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    source: Source<'a>,
    kinds: KindSet,
}

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    List(&'a [Field<'a>]),
    /// The bytes of a head, and the positions of fields in them.
    Head(&'a [u8], &'a [FieldPosition]),
}

impl<'a> Fields<'a> {
    pub fn new(fields: &'a [Field<'a>]) -> Fields<'a> {
        Fields {
            source: Source::List(fields),
            kinds: fields.iter().map(|field| field.kind).collect(),
        }
    }

    /// The fields at these positions of a head; `kinds` are theirs.
    pub fn of_head(bytes: &'a [u8], fields: &'a [FieldPosition], kinds: KindSet) -> Fields<'a> {
        Fields {
            source: Source::Head(bytes, fields),
            kinds,
        }
    }

    pub fn count(self) -> usize {
        match self.source {
            Source::List(fields) => fields.len(),
            Source::Head(_, fields) => fields.len(),
        }
    }

    pub fn kinds(self) -> KindSet {
        self.kinds
    }

    pub fn has(self, kind: FieldKind) -> bool {
        self.kinds.has(kind)
    }

    fn get(self, at: usize) -> Option<Field<'a>> {
        match self.source {
            Source::List(fields) => fields.get(at).copied(),
            Source::Head(bytes, fields) => Some(fields.get(at)?.borrow(bytes)),
        }
    }

    /// The fields, in order of arrival.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Field<'a>> + Clone {
        (0..self.count()).filter_map(move |at| self.get(at))
    }

    /// The value of the first field of a kind.
    pub fn first(self, kind: FieldKind) -> Option<&'a [u8]> {
        match self.has(kind) {
            true => self.all(kind).next(),
            false => None,
        }
    }

    /// The values of all fields of a kind.
    pub fn all(self, kind: FieldKind) -> Values<'a> {
        let source = match self.has(kind) {
            true => self.source,
            false => Source::List(&[]),
        };
        Values { source, kind }
    }

    /// The values of all fields of a configured name.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_named = move |field: &Field<'_>| field.name.eq_ignore_ascii_case(name.as_bytes());
        self.iter().filter(is_named).map(|field| field.value)
    }

    /// Names and values.
    pub fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        self.iter().map(|field| (field.name, field.value))
    }
}

/// The values of the fields of one kind.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    /// The fields that are left.
    source: Source<'a>,
    kind: FieldKind,
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.source {
            Source::List(fields) => {
                let at = fields.iter().position(|field| field.kind == self.kind)?;
                let (field, rest) = fields.split_at_checked(at)?.1.split_first()?;
                *fields = rest;
                Some(field.value)
            }
            Source::Head(bytes, fields) => {
                let at = fields.iter().position(|field| field.kind == self.kind)?;
                let (field, rest) = fields.split_at_checked(at)?.1.split_first()?;
                *fields = rest;
                Some(field.value(bytes))
            }
        }
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
