//! The certificates that a configuration requires.

use std::sync::Arc;

use super::account;
use crate::database::AcmeAccountKey;
use crate::settings::Reloadable;
use crate::settings::acme::AcmeSettings;

/// The certificate of one domain from one authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) directory: String,
    pub(super) domain: String,
}

/// What is ordered with one account.
pub(super) struct WantedFromAccount {
    pub(super) account: AcmeAccountKey,
    pub(super) settings: Arc<AcmeSettings>,
    pub(super) domains: Vec<Wanted>,
}

impl Wanted {
    /// Those of one listener, in the order of the file.
    pub(super) fn of(settings: &AcmeSettings) -> impl Iterator<Item = Wanted> {
        settings.domains.iter().map(|domain| Wanted {
            directory: settings.directory.to_string(),
            domain: domain.clone(),
        })
    }

    /// What binds a sealed key to its certificate.
    pub(super) fn associated_data(&self) -> Vec<u8> {
        let parts = ["acme certificate", &self.directory, &self.domain];
        parts.join("\0").into_bytes()
    }
}

/// Those of all listeners.
pub(super) fn wanted(settings: &Reloadable) -> Vec<Wanted> {
    let of_listeners = settings
        .served_listeners()
        .filter_map(|one| one.acme.as_ref());
    let mut all: Vec<Wanted> = Vec::new();
    for wanted in of_listeners.flat_map(|acme| Wanted::of(&acme.settings)) {
        if !all.contains(&wanted) {
            all.push(wanted);
        }
    }
    all
}

/// Those of all listeners, by account and challenge.
pub(super) fn by_account(settings: &Reloadable) -> Vec<WantedFromAccount> {
    let mut missing = wanted(settings);
    let of_listeners = settings
        .served_listeners()
        .filter_map(|one| one.acme.as_ref());
    let groups = of_listeners.map(|acme| {
        let of_listener: Vec<Wanted> = Wanted::of(&acme.settings).collect();
        let (domains, rest) = std::mem::take(&mut missing)
            .into_iter()
            .partition(|wanted| of_listener.contains(wanted));
        missing = rest;
        WantedFromAccount {
            account: account::key(&acme.settings),
            settings: Arc::clone(&acme.settings),
            domains,
        }
    });
    groups.collect()
}
