-- Identities at providers with which users of the database sign in. One text for SQLite and PostgreSQL.
--
-- `users.password_hash` is empty for a user without password, and `users.email` is the user's id for a
-- user without email.
CREATE TABLE user_identities (
    id              TEXT   NOT NULL PRIMARY KEY,
    user_id         TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The provider's name in the configuration, and its issuer.
    provider        TEXT   NOT NULL,
    issuer          TEXT   NOT NULL,
    subject         TEXT   NOT NULL,
    -- As the provider verified it at the latest sign-in; canonical: ASCII, lower case.
    email           TEXT,
    -- Mapped from the claims of the latest sign-in or recheck. JSON arrays of strings.
    roles           TEXT   NOT NULL,
    scopes          TEXT   NOT NULL,
    -- Unix milliseconds.
    created_at      BIGINT NOT NULL,
    last_sign_in_at BIGINT,
    UNIQUE (provider, issuer, subject)
);

CREATE INDEX user_identities_of_user ON user_identities (user_id);
