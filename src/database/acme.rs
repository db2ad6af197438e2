//! Accounts and certificates by ACME, sealed by the caller.

use super::sql::Row;
use super::{Database, Error};
use crate::auth::session::Millis;

/// Number of certificates that are read at most.
const MAX_CERTIFICATES: i64 = 10_000;

/// Identifies an account at a certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AcmeAccountKey {
    pub directory: String,
    /// Empty without one.
    pub email: String,
    /// The external account that it is bound to; empty without one.
    pub external_id: String,
}

/// The right of one gateway to order with an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeLease {
    pub account: AcmeAccountKey,
    holder: i64,
}

/// State of the certificate of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificateState {
    pub directory: String,
    pub domain: String,
    /// Number of certificates issued so far; 0: there is none yet.
    pub version: u64,
    pub renew_at: Millis,
    /// Failed attempts since the latest success.
    pub failures: u64,
    /// Earliest time of the next attempt.
    pub retry_at: Millis,
}

/// A certificate with its sealed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// PEM, the certificate itself first.
    pub chain: String,
    pub sealed_key: Vec<u8>,
    pub renew_at: Millis,
}

impl Database {
    /// Acquires the lease of an account until a time; `None`: another gateway has it. A lease that
    /// ends after `latest` was made with a wrong clock and is void.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begin_acme_orders(
        &self,
        account: &AcmeAccountKey,
        now: Millis,
        until: Millis,
        latest: Millis,
    ) -> Result<Option<AcmeLease>, Error> {
        let holder: i64 = rand::random();
        let upsert = self.pool.sql(
            "INSERT INTO acme_accounts (directory, email, external_id, holder, leased_until) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (directory, email, external_id) DO UPDATE \
             SET holder = excluded.holder, leased_until = excluded.leased_until \
             WHERE acme_accounts.leased_until <= $6 OR acme_accounts.leased_until > $7 \
             RETURNING holder",
        );
        let upsert = upsert
            .bind(&account.directory)
            .bind(&account.email)
            .bind(&account.external_id)
            .bind(holder)
            .bind(until.cast_signed())
            .bind(now.cast_signed())
            .bind(latest.cast_signed());
        let acquired = !self.pool.write(upsert).await?.is_empty();
        Ok(acquired.then(|| AcmeLease {
            account: account.clone(),
            holder,
        }))
    }

    /// Extends a lease until a time, or ends it with a time in the past; `false`: it has passed to
    /// another gateway.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn extend_acme_orders(
        &self,
        lease: &AcmeLease,
        until: Millis,
    ) -> Result<bool, Error> {
        let update = self.pool.sql(
            "UPDATE acme_accounts SET leased_until = $5 WHERE directory = $1 AND email = $2 \
             AND external_id = $3 AND holder = $4 RETURNING holder",
        );
        let update = update
            .bind(&lease.account.directory)
            .bind(&lease.account.email)
            .bind(&lease.account.external_id)
            .bind(lease.holder)
            .bind(until.cast_signed());
        Ok(!self.pool.write(update).await?.is_empty())
    }

    /// Reads the sealed credentials of an account, if it has been created.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn acme_credentials(
        &self,
        account: &AcmeAccountKey,
    ) -> Result<Option<Vec<u8>>, Error> {
        let select = self.pool.sql(
            "SELECT credentials FROM acme_accounts WHERE directory = $1 AND email = $2 \
             AND external_id = $3 AND credentials IS NOT NULL",
        );
        let select = select
            .bind(&account.directory)
            .bind(&account.email)
            .bind(&account.external_id);
        let rows = self.pool.read(select).await?;
        let row = rows.first();
        Ok(row.map(|row| row.get("credentials")).transpose()?)
    }

    /// Writes the sealed credentials of an account that a lease has made known; `None` deletes them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_acme_credentials(
        &self,
        account: &AcmeAccountKey,
        sealed: Option<&[u8]>,
    ) -> Result<(), Error> {
        let update = self.pool.sql(
            "UPDATE acme_accounts SET credentials = $4 WHERE directory = $1 AND email = $2 \
             AND external_id = $3",
        );
        let update = update
            .bind(&account.directory)
            .bind(&account.email)
            .bind(&account.external_id)
            .bind(sealed);
        self.pool.write(update).await?;
        Ok(())
    }

    /// Reads the states of all certificates.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn acme_certificate_states(&self) -> Result<Vec<AcmeCertificateState>, Error> {
        let select = self.pool.sql(
            "SELECT directory, domain, version, renew_at, failures, retry_at \
             FROM acme_certificates LIMIT $1",
        );
        let rows = self.pool.read(select.bind(MAX_CERTIFICATES)).await?;
        Ok(rows.iter().map(read_state).collect::<Result<_, _>>()?)
    }

    /// Reads the certificate of a domain, with its version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn acme_certificate(
        &self,
        directory: &str,
        domain: &str,
    ) -> Result<Option<(u64, AcmeCertificate)>, Error> {
        let select = self.pool.sql(
            "SELECT version, chain, private_key, renew_at FROM acme_certificates \
             WHERE directory = $1 AND domain = $2 AND version > 0",
        );
        let rows = self.pool.read(select.bind(directory).bind(domain)).await?;
        let read = |row: &Row| -> Result<(u64, AcmeCertificate), sqlx::Error> {
            let certificate = AcmeCertificate {
                chain: row.get("chain")?,
                sealed_key: row.get("private_key")?,
                renew_at: row.timestamp("renew_at")?,
            };
            Ok((row.timestamp("version")?, certificate))
        };
        Ok(rows.first().map(read).transpose()?)
    }

    /// Replaces the certificate of a domain. The next one is not ordered before `retry_at`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_acme_certificate(
        &self,
        directory: &str,
        domain: &str,
        certificate: &AcmeCertificate,
        retry_at: Millis,
    ) -> Result<(), Error> {
        let upsert = self.pool.sql(
            "INSERT INTO acme_certificates \
             (directory, domain, version, chain, private_key, renew_at, failures, retry_at) \
             VALUES ($1, $2, 1, $3, $4, $5, 0, $6) ON CONFLICT (directory, domain) DO UPDATE \
             SET version = acme_certificates.version + 1, chain = excluded.chain, \
             private_key = excluded.private_key, renew_at = excluded.renew_at, failures = 0, \
             retry_at = excluded.retry_at",
        );
        let upsert = upsert
            .bind(directory)
            .bind(domain)
            .bind(&certificate.chain)
            .bind(&certificate.sealed_key)
            .bind(certificate.renew_at.cast_signed())
            .bind(retry_at.cast_signed());
        self.pool.write(upsert).await?;
        Ok(())
    }

    /// Replaces a sealed key by the same key, sealed anew; not if the key has changed meanwhile.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reseal_acme_key(
        &self,
        directory: &str,
        domain: &str,
        old: &[u8],
        new: &[u8],
    ) -> Result<(), Error> {
        let update = self.pool.sql(
            "UPDATE acme_certificates SET private_key = $4 WHERE directory = $1 AND domain = $2 \
             AND private_key = $3",
        );
        let update = update.bind(directory).bind(domain).bind(old).bind(new);
        self.pool.write(update).await?;
        Ok(())
    }

    /// Records a failed attempt to order the certificate of a domain.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn record_acme_failure(
        &self,
        directory: &str,
        domain: &str,
        retry_at: Millis,
    ) -> Result<(), Error> {
        let upsert = self.pool.sql(
            "INSERT INTO acme_certificates \
             (directory, domain, version, chain, private_key, renew_at, failures, retry_at) \
             VALUES ($1, $2, 0, '', $4, 0, 1, $3) ON CONFLICT (directory, domain) DO UPDATE \
             SET failures = acme_certificates.failures + 1, retry_at = excluded.retry_at",
        );
        let upsert = upsert
            .bind(directory)
            .bind(domain)
            .bind(retry_at.cast_signed())
            .bind(Vec::<u8>::new());
        self.pool.write(upsert).await?;
        Ok(())
    }
}

fn read_state(row: &Row) -> Result<AcmeCertificateState, sqlx::Error> {
    Ok(AcmeCertificateState {
        directory: row.get("directory")?,
        domain: row.get("domain")?,
        version: row.timestamp("version")?,
        renew_at: row.timestamp("renew_at")?,
        failures: row.timestamp("failures")?,
        retry_at: row.timestamp("retry_at")?,
    })
}
