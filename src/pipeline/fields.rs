//! Header fields of a request as a flat list, in order of arrival. Rules read it whichever engine
//! received the request.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

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

/// The name of a field, as far as a rule looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldKind {
    Accept,
    AccessControlRequestHeaders,
    AccessControlRequestMethod,
    Authorization,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    SecFetchMode,
    SecFetchSite,
    SetCookie,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    Other,
}

impl FieldKind {
    /// The kind of a name in any case. The length leaves few names to compare with.
    pub fn of(name: &[u8]) -> FieldKind {
        use FieldKind::*;
        let candidates: &[(&[u8], FieldKind)] = match name.len() {
            2 => &[(b"te", Te)],
            3 => &[(b"via", Via)],
            4 => &[(b"host", Host)],
            6 => &[
                (b"accept", Accept),
                (b"cookie", Cookie),
                (b"origin", Origin),
                (b"expect", Expect),
            ],
            7 => &[(b"upgrade", Upgrade), (b"trailer", Trailer)],
            9 => &[(b"forwarded", Forwarded)],
            10 => &[
                (b"connection", Connection),
                (b"keep-alive", KeepAlive),
                (b"user-agent", UserAgent),
                (b"set-cookie", SetCookie),
                (b"tracestate", Tracestate),
            ],
            11 => &[(b"traceparent", Traceparent)],
            12 => &[
                (b"content-type", ContentType),
                (b"x-request-id", XRequestId),
            ],
            13 => &[(b"authorization", Authorization)],
            14 => &[
                (b"content-length", ContentLength),
                (b"sec-fetch-site", SecFetchSite),
                (b"sec-fetch-mode", SecFetchMode),
                (b"http2-settings", Http2Settings),
            ],
            15 => &[(b"x-forwarded-for", XForwardedFor)],
            16 => &[
                (b"x-forwarded-host", XForwardedHost),
                (b"proxy-connection", ProxyConnection),
            ],
            17 => &[
                (b"transfer-encoding", TransferEncoding),
                (b"x-forwarded-proto", XForwardedProto),
            ],
            18 => &[(b"proxy-authenticate", ProxyAuthenticate)],
            19 => &[(b"proxy-authorization", ProxyAuthorization)],
            29 => &[(b"access-control-request-method", AccessControlRequestMethod)],
            30 => &[(
                b"access-control-request-headers",
                AccessControlRequestHeaders,
            )],
            _ => &[],
        };
        let found = candidates
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map_or(Other, |(_, kind)| *kind)
    }
}

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
    fn kind_is_found_in_any_case_and_by_the_whole_name() {
        use FieldKind::*;
        for (name, kind) in [
            ("accept", Accept),
            (
                "access-control-request-headers",
                AccessControlRequestHeaders,
            ),
            ("access-control-request-method", AccessControlRequestMethod),
            ("authorization", Authorization),
            ("connection", Connection),
            ("content-length", ContentLength),
            ("content-type", ContentType),
            ("cookie", Cookie),
            ("expect", Expect),
            ("forwarded", Forwarded),
            ("host", Host),
            ("http2-settings", Http2Settings),
            ("keep-alive", KeepAlive),
            ("origin", Origin),
            ("proxy-authenticate", ProxyAuthenticate),
            ("proxy-authorization", ProxyAuthorization),
            ("proxy-connection", ProxyConnection),
            ("sec-fetch-mode", SecFetchMode),
            ("sec-fetch-site", SecFetchSite),
            ("set-cookie", SetCookie),
            ("te", Te),
            ("traceparent", Traceparent),
            ("tracestate", Tracestate),
            ("trailer", Trailer),
            ("transfer-encoding", TransferEncoding),
            ("upgrade", Upgrade),
            ("user-agent", UserAgent),
            ("via", Via),
            ("x-forwarded-for", XForwardedFor),
            ("x-forwarded-host", XForwardedHost),
            ("x-forwarded-proto", XForwardedProto),
            ("x-request-id", XRequestId),
        ] {
            assert_eq!(FieldKind::of(name.as_bytes()), kind, "{name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(FieldKind::of(upper.as_bytes()), kind, "{upper}");
            let longer = format!("{name}s");
            assert_eq!(FieldKind::of(longer.as_bytes()), Other, "{longer}");
            let shorter = name.get(1..).unwrap_or_default();
            assert_eq!(FieldKind::of(shorter.as_bytes()), Other, "{shorter}");
            let other = name.replace(|c: char| c.is_ascii_lowercase(), "_");
            assert_eq!(FieldKind::of(other.as_bytes()), Other, "{other}");
        }
        assert_eq!(FieldKind::of(b""), Other);
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
