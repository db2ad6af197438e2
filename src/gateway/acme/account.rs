//! The gateway's account at a certificate authority, which the fleet shares.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use zeroize::Zeroizing;

use super::authority::Authority;
use super::failure::OrderFailure;
use crate::auth::sealing::KeyRing;
use crate::database::{AcmeAccountKey, Database};
use crate::settings::acme::AcmeSettings;

/// Names the account of these settings.
pub(super) fn key(settings: &AcmeSettings) -> AcmeAccountKey {
    let external_account = settings.external_account.as_ref();
    AcmeAccountKey {
        directory: settings.directory.to_string(),
        email: settings.email.clone().unwrap_or_default(),
        external_id: external_account.map_or(String::new(), |account| account.key_id.clone()),
    }
}

/// Opens the account, or creates it at the authority.
pub(super) async fn open(
    database: &Database,
    keys: &KeyRing,
    settings: &AcmeSettings,
    authority: &Authority,
) -> Result<Account, OrderFailure> {
    let name = key(settings);
    let Some(credentials) = read(database, keys, &name).await? else {
        return create(database, keys, settings, authority).await;
    };
    let builder = Account::builder_with_http(Box::new(authority.clone()));
    Ok(builder.from_credentials(credentials).await?)
}

async fn read(
    database: &Database,
    keys: &KeyRing,
    name: &AcmeAccountKey,
) -> Result<Option<AccountCredentials>, OrderFailure> {
    let Some(sealed) = database.acme_credentials(name).await? else {
        return Ok(None);
    };
    let opened = keys.open(&associated_data(name), &sealed);
    let credentials = opened
        .as_ref()
        .and_then(|opened| serde_json::from_slice(&opened.plain).ok());
    if credentials.is_none() {
        tracing::warn!(
            directory = name.directory,
            "the ACME account does not open with the keys in encryption; a new one is created"
        );
    }
    if let Some(opened) = opened.filter(|opened| opened.is_outdated) {
        let sealed = keys.seal(&associated_data(name), &opened.plain);
        database
            .put_acme_credentials(name, sealed.as_deref())
            .await?;
    }
    Ok(credentials)
}

async fn create(
    database: &Database,
    keys: &KeyRing,
    settings: &AcmeSettings,
    authority: &Authority,
) -> Result<Account, OrderFailure> {
    let name = key(settings);
    let contact = settings
        .email
        .as_ref()
        .map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        // The configuration is not valid without.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = settings.external_account.as_ref();
    let external =
        external.map(|account| ExternalAccountKey::new(account.key_id.clone(), &account.key));
    let builder = Account::builder_with_http(Box::new(authority.clone()));
    let directory = name.directory.clone();
    let (account, credentials) = builder.create(&new, directory, external.as_ref()).await?;
    let plain = serde_json::to_vec(&credentials).map(Zeroizing::new);
    let plain = plain.map_err(|_| OrderFailure::error("the account cannot be written"))?;
    let sealed = keys.seal(&associated_data(&name), &plain);
    let sealed = sealed.ok_or_else(|| OrderFailure::error("the account cannot be sealed"))?;
    database.put_acme_credentials(&name, Some(&sealed)).await?;
    tracing::info!(directory = name.directory, "an ACME account was created");
    Ok(account)
}

fn associated_data(name: &AcmeAccountKey) -> Vec<u8> {
    let parts = [
        "acme account",
        &name.directory,
        &name.email,
        &name.external_id,
    ];
    parts.join("\0").into_bytes()
}
