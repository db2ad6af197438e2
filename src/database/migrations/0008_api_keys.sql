-- API keys of users and services. One text for SQLite and PostgreSQL. Times are Unix milliseconds.
CREATE TABLE api_keys (
    -- Public; part of the key.
    id            TEXT   NOT NULL PRIMARY KEY,
    -- The id of a user, or `service:` and a name. A key outlives its user, revoked.
    owner         TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    -- JSON arrays of strings. No address: all may use the key.
    roles         TEXT   NOT NULL,
    scopes        TEXT   NOT NULL,
    allowed_ips   TEXT   NOT NULL,
    -- JSON: the SHA-256 of the key, and of those that rotations have replaced.
    secrets       TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT,
    revoked_at    BIGINT,
    -- Of the key itself, not its use.
    changed_at    BIGINT NOT NULL,
    last_used_at  BIGINT,
    last_used_ip  TEXT,
    request_count BIGINT NOT NULL
);

CREATE INDEX api_keys_of_owner ON api_keys (owner, created_at, id);
CREATE INDEX api_keys_by_age ON api_keys (created_at, id);
CREATE INDEX api_keys_by_change ON api_keys (changed_at);
