-- Certificates by ACME. One text for SQLite and PostgreSQL. Times are Unix milliseconds.

-- Accounts at certificate authorities.
CREATE TABLE acme_accounts (
    directory    TEXT   NOT NULL,
    -- The email address and the external account, as configured; empty without one.
    email        TEXT   NOT NULL,
    external_id  TEXT   NOT NULL,
    -- URL and key of the account, sealed. Null before the first order.
    credentials  BYTEA,
    -- The gateway that orders with the account, and until when.
    holder       BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    PRIMARY KEY (directory, email, external_id)
);

CREATE TABLE acme_certificates (
    directory   TEXT   NOT NULL,
    domain      TEXT   NOT NULL,
    -- Number of certificates issued so far. 0: there is none yet.
    version     BIGINT NOT NULL,
    -- PEM, the certificate itself first.
    chain       TEXT   NOT NULL,
    -- PEM, sealed.
    private_key BYTEA  NOT NULL,
    renew_at    BIGINT NOT NULL,
    -- Failed attempts since the latest success, and the earliest time of the next attempt.
    failures    BIGINT NOT NULL,
    retry_at    BIGINT NOT NULL,
    PRIMARY KEY (directory, domain)
);
