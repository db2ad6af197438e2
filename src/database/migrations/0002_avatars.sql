-- Pictures of people, one each, as they were uploaded. One text for SQLite and PostgreSQL.
CREATE TABLE IF NOT EXISTS avatars (
    user_id    TEXT   NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- What the bytes are, found out from themselves.
    media_type TEXT   NOT NULL,
    picture    BYTEA  NOT NULL,
    -- Unix milliseconds.
    updated_at BIGINT NOT NULL
);

-- What each user has signed in with, by a hash of what it said it is.
CREATE TABLE IF NOT EXISTS sign_in_devices (
    user_id TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device  TEXT   NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, device)
);
