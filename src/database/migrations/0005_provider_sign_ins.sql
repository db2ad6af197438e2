-- How the user of a session signed in at a provider; null for passwords and backends. One text for SQLite
-- and PostgreSQL.
ALTER TABLE user_sessions ADD COLUMN provider TEXT;
ALTER TABLE user_sessions ADD COLUMN provider_subject TEXT;
-- The provider's own session, for its logout tokens.
ALTER TABLE user_sessions ADD COLUMN provider_sid TEXT;
-- Unix milliseconds.
ALTER TABLE user_sessions ADD COLUMN authenticated_at BIGINT;
ALTER TABLE user_sessions ADD COLUMN acr TEXT;
-- A JSON array of strings.
ALTER TABLE user_sessions ADD COLUMN amr TEXT;
-- The provider's tokens, sealed, and the number of times that they were replaced.
ALTER TABLE user_sessions ADD COLUMN provider_tokens BYTEA;
ALTER TABLE user_sessions ADD COLUMN provider_tokens_version BIGINT NOT NULL DEFAULT 0;

CREATE INDEX user_sessions_of_provider ON user_sessions (provider, provider_subject)
    WHERE provider IS NOT NULL;
CREATE INDEX user_sessions_of_provider_sid ON user_sessions (provider, provider_sid)
    WHERE provider_sid IS NOT NULL;
