-- What is refused though it is genuine, where revocations outlive the store (`sessions.durable`). One
-- text for SQLite and PostgreSQL.
CREATE TABLE revocations (
    -- `token:` and what the blacklist names the token by, or `person:` and the hash of a person.
    name        TEXT    NOT NULL PRIMARY KEY,
    -- Of a person: up to which second tokens without session are refused.
    second      BIGINT,
    -- Unix milliseconds, as are all times but the seconds.
    made_at     BIGINT  NOT NULL,
    kept_until  BIGINT  NOT NULL,
    -- It may not be known to the store yet.
    untold      BOOLEAN NOT NULL
);

CREATE INDEX revocations_by_expiry ON revocations (kept_until);
CREATE INDEX revocations_by_making ON revocations (made_at);
CREATE INDEX revocations_untold ON revocations (made_at) WHERE untold;

-- Which content the store had when it was last looked at: one that has lost it has lost its marker.
CREATE TABLE store_markers (
    key_prefix  TEXT    NOT NULL PRIMARY KEY,
    marker      TEXT    NOT NULL,
    -- Whether every revocation in it is in `revocations`.
    complete    BOOLEAN NOT NULL
);
