-- Sessions where they outlive the store (`sessions.durable`). One text for SQLite and PostgreSQL.
CREATE TABLE user_sessions (
    -- The SHA-256 of the session token, in hex: the token's hash is the session's id.
    id              TEXT    NOT NULL PRIMARY KEY,
    -- Not a reference to `users`: a backend may know people that are not there.
    user_id         TEXT    NOT NULL,
    email           TEXT    NOT NULL,
    name            TEXT,
    -- JSON arrays of strings.
    roles           TEXT    NOT NULL,
    scopes          TEXT    NOT NULL,
    -- The same for sign-ins of one user with the same device type, device name and user agent.
    device_id       TEXT    NOT NULL,
    device_type     TEXT,
    device_name     TEXT,
    -- For programs that keep sockets of their own; the gateway leaves it alone.
    socket_id       TEXT,
    ip_address      TEXT    NOT NULL,
    user_agent      TEXT    NOT NULL,
    -- The application's own object, JSON.
    data            TEXT    NOT NULL,
    -- Counts the changes of who the session is from and what it may do.
    revision        BIGINT  NOT NULL,
    is_active       BOOLEAN NOT NULL,
    -- Unix milliseconds, as are all times.
    last_activity   BIGINT  NOT NULL,
    created_at      BIGINT  NOT NULL,
    expires_at      BIGINT  NOT NULL,
    ended_at        BIGINT,
    ended_reason    TEXT,
    -- The end may not be known to the store yet.
    end_untold      BOOLEAN NOT NULL,
    -- The SHA-256 of the current refresh token, in hex, and when it ends.
    refresh_hash    TEXT    NOT NULL,
    refresh_until   BIGINT  NOT NULL,
    -- Those rotated a moment ago, the oldest first: "<hash> <when> " for each.
    refresh_rotated TEXT    NOT NULL,
    -- An old one came back.
    refresh_reused  BOOLEAN NOT NULL
);

CREATE INDEX user_sessions_of_user ON user_sessions (user_id, is_active, created_at);
CREATE INDEX user_sessions_by_expiry ON user_sessions (expires_at);
CREATE INDEX user_sessions_by_end ON user_sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX user_sessions_untold ON user_sessions (ended_at) WHERE end_untold;
