//! Label values other than names from the configuration. Each text is defined only here.

/// Declares enums of label values, with their texts and a list of all.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }
    )*};
}

labels! {
    /// An operation of the store.
    StoreOperation {
        AcmeChallenge = "acme_challenge",
        AllSessions = "all_sessions",
        AmendSession = "amend_session",
        BeginCleanUp = "begin_clean_up",
        Blacklist = "blacklist",
        Charge = "charge",
        CleanUp = "clean_up",
        Counts = "counts",
        CreateSession = "create_session",
        CutOff = "cut_off",
        CutOffs = "cut_offs",
        Decide = "decide",
        EndCleanUp = "end_clean_up",
        EndedAmong = "ended_among",
        Events = "events",
        ExtendApiKeys = "extend_api_keys",
        Follow = "follow",
        ForgetProfile = "forget_profile",
        HoldsRefresh = "holds_refresh",
        IndexSignIn = "index_sign_in",
        InvalidateApiKeys = "invalidate_api_keys",
        IsBlacklisted = "is_blacklisted",
        LeaseApiKey = "lease_api_key",
        LogoutMarks = "logout_marks",
        LogoutToken = "logout_token",
        MarkLogout = "mark_logout",
        Marker = "marker",
        Now = "now",
        PeekLimit = "peek_limit",
        Presence = "presence",
        Probe = "probe",
        Profile = "profile",
        ProviderTokens = "provider_tokens",
        PutAcmeChallenge = "put_acme_challenge",
        PutApiKey = "put_api_key",
        PutProfile = "put_profile",
        PutProviderTokens = "put_provider_tokens",
        RecordUses = "record_uses",
        RedeemCode = "redeem_code",
        Refund = "refund",
        ReportLive = "report_live",
        ResetLimit = "reset_limit",
        Restore = "restore",
        Revoke = "revoke",
        RevokeUser = "revoke_user",
        RotateRefresh = "rotate_refresh",
        Session = "session",
        SessionsOf = "sessions_of",
        SetIdentity = "set_identity",
        SignInUsers = "sign_in_users",
        Touch = "touch",
        Unblacklist = "unblacklist",
        UserIndex = "user_index",
        WriteEvents = "write_events",
    }

    /// A cache of this gateway.
    CacheName {
        Sessions = "sessions",
        Tokens = "tokens",
        Profiles = "profiles",
        Assertions = "assertions",
        Leases = "leases",
        ApiKeys = "api_keys",
    }

    /// The outcome of a cache look-up.
    CacheOutcome {
        Hit = "hit",
        Miss = "miss",
    }

    /// A limit's decision about one request.
    LimitOutcome {
        Allowed = "allowed",
        Limited = "limited",
        Degraded = "degraded",
        ShadowLimited = "shadow_limited",
    }

    /// The protocol by which a front proxy queries.
    Dialect {
        AuthRequest = "auth-request",
        ForwardAuth = "forward-auth",
        ExtAuthz = "ext-authz",
        ExtAuthzGrpc = "ext-authz-grpc",
    }

    /// The outcome of a configuration reload.
    ReloadStatus {
        Applied = "applied",
        Rejected = "rejected",
        RestartRequired = "restart_required",
    }

    /// The outcome of a cleanup run.
    CleanUpStatus {
        Done = "done",
        Failed = "failed",
        Skipped = "skipped",
    }

    /// An item that cleanup runs remove.
    CleanUpKind {
        Sessions = "sessions",
        IndexEntries = "index_entries",
        Blacklist = "blacklist",
        LiveReports = "live_reports",
        DurableSessions = "durable_sessions",
        Revocations = "revocations",
        ApiKeys = "api_keys",
    }

    /// The outcome of an order of a certificate.
    AcmeOutcome {
        Issued = "issued",
        Refused = "refused",
        RateLimited = "rate_limited",
        Error = "error",
    }

    /// The outcome of a fetch of an issuer's keys.
    FetchStatus {
        Ok = "ok",
        Failed = "failed",
    }

    /// An endpoint of a provider.
    ProviderEndpoint {
        Discovery = "discovery",
        Jwks = "jwks",
        Par = "par",
        Token = "token",
        Userinfo = "userinfo",
        Revocation = "revocation",
    }

    /// The outcome of the introspection of a token.
    IntrospectionOutcome {
        Active = "active",
        Inactive = "inactive",
        Unknown = "unknown",
        Cached = "cached",
    }

    /// The outcome of a request to a provider.
    ProviderOutcome {
        Ok = "ok",
        Refused = "refused",
        Error = "error",
        Timeout = "timeout",
    }

    /// The response to a logout request of a provider.
    BackchannelOutcome {
        Ok = "ok",
        Refused = "refused",
        Unavailable = "unavailable",
    }

    /// What an exchange of provider tokens says of a session.
    RecheckOutcome {
        Renewed = "renewed",
        Ended = "ended",
        Unknown = "unknown",
    }

    /// Reason why a connection is closed before its first request.
    ConnectionRefusal {
        Connections = "connections",
        ConnectionsPerAddress = "connections_per_address",
        AdminConnections = "admin_connections",
        ProxyProtocol = "proxy_protocol",
        HandshakeRate = "handshake_rate",
        Handshake = "handshake",
        HandshakeTimeout = "handshake_timeout",
        Http2Preface = "http2_preface",
    }
}
