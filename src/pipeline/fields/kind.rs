//! The names of fields that rules look for.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
