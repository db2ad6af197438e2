//! The configuration in force: all that a reload replaces.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::assertions::Assertions;
use crate::identity::oidc::Providers;
use crate::issuers::Issuers;
use crate::issuers::introspection::Introspections;
use crate::issuers::verifier::Verifier;
use crate::settings::Reloadable;
use crate::telemetry::logging::RouteFields;
use crate::telemetry::metrics::{Metrics, RoutingSeries};
use crate::upstream::{SendProbe, Upstreams};

/// Everything that a reload replaces, swapped as a whole. A request takes one snapshot and keeps
/// it, so it sees one configuration from its first byte to its access log line.
pub struct Snapshot {
    pub settings: Reloadable,
    /// Verifies bearer tokens with the configured keys and those of trusted issuers.
    pub verifier: Verifier,
    /// The providers at which users sign in.
    pub providers: Providers,
    /// The servers in rotation.
    pub upstreams: Upstreams,
    /// Signs the identity that upstreams receive.
    pub assertions: Assertions,
    pub series: RoutingSeries,
    pub route_fields: RouteFields,
}

impl Snapshot {
    /// Puts a configuration in force: starts to fetch keys and to check servers. Parts that are
    /// configured as in `previous` keep their state.
    pub async fn start(
        settings: Reloadable,
        previous: Option<&Snapshot>,
        send_probe: &SendProbe,
        metrics: &Arc<Metrics>,
    ) -> Snapshot {
        let issuers = previous.map(|previous| previous.verifier.issuers());
        let issuers = Issuers::new(&settings.tokens, metrics, issuers);
        let introspections = previous.map(|previous| previous.verifier.introspections());
        let introspections = Introspections::new(&settings.introspection, introspections, metrics);
        let providers = previous.map(|previous| &previous.providers);
        let providers = Providers::start(&settings.identity.providers, providers, metrics);
        let upstreams = Upstreams::build(
            &settings.upstreams,
            previous.map(|previous| &previous.upstreams),
            send_probe,
            metrics,
            Handle::current(),
        )
        .await;
        let snapshot = Snapshot::new(settings, issuers, providers, upstreams, metrics);
        Snapshot {
            verifier: snapshot.verifier.with_introspections(introspections),
            ..snapshot
        }
    }

    /// A configuration for a process that serves no traffic: fetches no keys and checks no servers.
    pub fn offline(settings: Reloadable, metrics: &Metrics) -> Snapshot {
        let (issuers, upstreams) = (Issuers::default(), Upstreams::default());
        Snapshot::new(settings, issuers, Providers::default(), upstreams, metrics)
    }

    fn new(
        settings: Reloadable,
        issuers: Issuers,
        providers: Providers,
        upstreams: Upstreams,
        metrics: &Metrics,
    ) -> Snapshot {
        Snapshot {
            verifier: Verifier::new(Arc::clone(&settings.tokens), issuers, metrics),
            providers,
            upstreams,
            assertions: Assertions::new(Arc::clone(&settings.tokens), metrics),
            series: RoutingSeries::new(&settings, metrics),
            route_fields: RouteFields::new(&settings),
            settings,
        }
    }
}
