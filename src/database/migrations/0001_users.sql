-- The people that the gateway knows itself. One text for SQLite and PostgreSQL.
CREATE TABLE IF NOT EXISTS users (
    id            TEXT    NOT NULL PRIMARY KEY,
    -- Canonical: ASCII, lower case.
    email         TEXT    NOT NULL UNIQUE,
    -- As its owner wrote it; `username_key` is the same in lower case.
    username      TEXT,
    username_key  TEXT    UNIQUE,
    name          TEXT,
    -- Argon2id in the PHC string format.
    password_hash TEXT    NOT NULL,
    -- JSON arrays of strings.
    roles         TEXT    NOT NULL,
    scopes        TEXT    NOT NULL,
    disabled      BOOLEAN NOT NULL,
    -- Unix milliseconds.
    created_at    BIGINT  NOT NULL,
    updated_at    BIGINT  NOT NULL
);

CREATE INDEX IF NOT EXISTS users_by_age ON users (created_at, id);

-- Where each user has signed in from: an attack from elsewhere never locks these out.
CREATE TABLE IF NOT EXISTS sign_in_addresses (
    user_id TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    address TEXT   NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, address)
);
