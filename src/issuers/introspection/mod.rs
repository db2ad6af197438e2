//! Introspection of tokens (RFC 7662): the client of each endpoint, with its latest responses.

mod call;
mod endpoint;
mod entry;
mod probe;
mod record;

use std::sync::Arc;

pub use call::CallError;
pub(super) use entry::IntrospectedToken;
use entry::IntrospectionClient;
pub use probe::{IntrospectionProbe, probe};
use tokio::runtime::Handle;

use crate::settings::introspection::IntrospectionEntry;
use crate::telemetry::metrics::{IntrospectionSeries, Metrics};

/// The introspection endpoints of a configuration, in its order.
#[derive(Clone, Default)]
pub struct Introspections {
    clients: Arc<[Arc<IntrospectionClient>]>,
}

/// Why a token could not be introspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntrospectionError {
    /// The endpoint gave no usable response.
    Unavailable,
    /// As many calls as are allowed are in progress.
    TooManyCalls,
}

impl Introspections {
    /// Makes the clients, which call from the current runtime. A client that `previous` has with the
    /// same settings is kept, with what it has cached.
    pub fn new(
        settings: &[Arc<IntrospectionEntry>],
        previous: Option<&Introspections>,
        metrics: &Metrics,
    ) -> Introspections {
        let clients = settings.iter().map(|settings| {
            let mut kept = previous.into_iter().flat_map(|all| all.clients.iter());
            match kept.find(|client| client.settings() == &**settings) {
                Some(kept) => Arc::clone(kept),
                None => {
                    let series = IntrospectionSeries::new(metrics, &settings.rules.name);
                    let runtime = Handle::current();
                    let client = IntrospectionClient::new(Arc::clone(settings), series, runtime);
                    Arc::new(client)
                }
            }
        });
        Introspections {
            clients: clients.collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The client at this index of the configuration.
    pub(super) fn get(&self, index: usize) -> Option<&Arc<IntrospectionClient>> {
        self.clients.get(index)
    }

    /// The client to which a token belongs: the one whose prefix it has, otherwise the one without.
    pub(super) fn of_token(&self, token: &str) -> Option<&Arc<IntrospectionClient>> {
        let with_prefix = self.clients.iter().find(|client| {
            let prefix = client.settings().prefix.as_deref();
            prefix.is_some_and(|prefix| token.starts_with(prefix))
        });
        let mut others = self.clients.iter();
        with_prefix.or_else(|| others.find(|client| client.settings().prefix.is_none()))
    }
}
