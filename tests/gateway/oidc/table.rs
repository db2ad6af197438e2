//! A gateway whose provider breaks one rule after another.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{CORP, Endpoint, Provider, User};
use crate::support::upstream::Upstream;
use crate::support::visitor::{Visit, Visitor};
use crate::support::wait::eventually;

/// What a browser gets from a sign-in, and what the log says of it.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) reason: &'static str,
}

pub(super) const fn flow_invalid(reason: &'static str) -> Outcome {
    outcome(400, "FLOW_INVALID", reason)
}

pub(super) const fn refused(reason: &'static str) -> Outcome {
    outcome(403, "SIGN_IN_REFUSED", reason)
}

pub(super) const fn provider_error(reason: &'static str) -> Outcome {
    outcome(502, "PROVIDER_ERROR", reason)
}

pub(super) const fn unavailable(reason: &'static str) -> Outcome {
    outcome(503, "PROVIDER_UNAVAILABLE", reason)
}

const fn outcome(status: u16, code: &'static str, reason: &'static str) -> Outcome {
    Outcome {
        status,
        code,
        reason,
    }
}

/// Reasons of callbacks that name no flow of the browser: its flows may go on.
const NO_FLOW: [&str; 3] = [
    "the state is missing",
    "no flow of this browser has this state",
    "the response token is not valid",
];

/// A provider and a gateway with it as the only way to sign in.
pub(super) struct Table {
    pub(super) provider: Provider,
    pub(super) gateway: Gateway,
    upstream: Upstream,
}

impl Table {
    pub(super) fn start() -> Table {
        Table::start_with(|config| config)
    }

    pub(super) fn start_with(vary: impl FnOnce(Config) -> Config) -> Table {
        Table::start_at(Provider::start(), vary)
    }

    /// Starts a gateway for a provider that breaks rules already: metadata and keys are kept.
    pub(super) fn start_at(provider: Provider, vary: impl FnOnce(Config) -> Config) -> Table {
        let upstream = Upstream::start();
        let config = Config::new(upstream.address)
            .set("/identity", json!({}))
            // Each row is a start and a callback from one address.
            .set(
                "/identity/sign_in_limits/attempts_per_address/limit",
                json!(100_000),
            )
            .set(
                "/identity/sign_in_limits/attempts_per_address/window",
                json!("1m"),
            );
        let config = provider
            .configure(config)
            .set(&setting("timeout"), json!("700ms"));
        let gateway = Gateway::start(vary(config));
        Table {
            provider,
            gateway,
            upstream,
        }
    }

    pub(super) fn start_url(&self) -> String {
        let destination = format!("/private/{}", self.upstream.requests());
        self.provider.start_url(&self.gateway, &destination)
    }

    /// A sign-in of a new visitor, to its end.
    pub(super) fn sign_in(&self, visitor: &mut Visitor) -> Visit {
        visitor.open(&self.start_url())
    }

    /// A new visitor, who keeps the cookies of the gateway.
    fn visitor(&self) -> Visitor {
        match self.gateway.config.file["sessions"]["cookie"]["secure"] == true {
            true => Visitor::on_loopback(),
            false => Visitor::new(),
        }
    }

    /// Checks that a sign-in succeeds.
    #[track_caller]
    pub(super) fn succeeds(&self, what: &str) {
        let mut visitor = self.visitor();
        let visit = self.sign_in(&mut visitor);
        assert_eq!(
            visit.response.status,
            200,
            "{what}: {}",
            visit.response.text()
        );
        assert!(visitor.session_cookie().is_some(), "{what}");
        self.provider.behave();
    }

    /// Checks that a sign-in fails so, on a page, without a session, and that the line of the request and
    /// the event name the reason.
    #[track_caller]
    pub(super) fn fails(&self, what: &str, outcome: Outcome) -> Visit {
        self.fails_with(what, outcome, |visitor| self.sign_in(visitor))
    }

    /// The same of what a visitor does otherwise.
    #[track_caller]
    pub(super) fn fails_with(
        &self,
        what: &str,
        outcome: Outcome,
        act: impl FnOnce(&mut Visitor) -> Visit,
    ) -> Visit {
        let mut visitor = self.visitor();
        let visit = act(&mut visitor);
        let text = visit.response.text();
        assert_eq!(visit.response.status, outcome.status, "{what}: {text}");
        assert!(text.contains(outcome.code), "{what}: {text}");
        assert!(!text.contains(outcome.reason), "{what}: {text}");
        let start = format!("/api/v1/auth/start/{CORP}");
        let start = visit.link(&start);
        let start = start.unwrap_or_else(|| panic!("{what}: a link that starts anew: {text}"));
        // The provider would return the same user at once.
        let asks_for_user = start.query().unwrap().contains("prompt=login");
        assert_eq!(asks_for_user, outcome.code == "SIGN_IN_REFUSED", "{what}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(visit.response.header(name), Some(value), "{what}");
        }
        let request_id = visit.response.header("x-request-id").unwrap();
        assert!(text.contains(request_id), "{what}: {text}");
        assert_eq!(visitor.session_cookie(), None, "{what}");
        let stays = !visitor.cookies("-flow-").is_empty();
        let may_stay = NO_FLOW.contains(&outcome.reason);
        assert!(!stays || may_stay, "{what}: the flow cookie stays");
        if outcome.status == 503 {
            visit.response.numeric_header("retry-after");
        }
        eventually(&format!("{what}: {}", outcome.reason), || {
            let logs = self.gateway.logs();
            let lines = logs.lines().filter(|line| line.contains(request_id));
            let named = lines.filter(|line| line.contains(outcome.reason));
            let (events, requests): (Vec<_>, Vec<_>) =
                named.partition(|line| line.contains("\"event\":\"sign_in_failed\""));
            (!events.is_empty() && !requests.is_empty()).then_some(())
        });
        self.provider.behave();
        visit
    }

    /// How many codes and refresh tokens the provider was sent.
    pub(super) fn redemptions(&self) -> usize {
        self.provider.received(Endpoint::Token).len()
    }

    /// Checks that no secret of any sign-in is in logs, metrics or rows.
    #[track_caller]
    pub(super) fn has_kept_secrets(&self) {
        let metrics = Request::get("/metrics").send(self.gateway.admin).text();
        let events = self.gateway.admin(Request::get("/admin/events")).text();
        let mut places = vec![
            ("log", self.gateway.logs().into_bytes()),
            ("metrics", metrics.into_bytes()),
            ("events", events.into_bytes()),
        ];
        for entry in std::fs::read_dir(self.gateway.config.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("people.db") {
                places.push(("rows", std::fs::read(path).unwrap()));
            }
        }
        let secrets = self.provider.secrets();
        assert!(!secrets.is_empty());
        for secret in secrets.iter().filter(|secret| secret.len() >= 16) {
            for (place, bytes) in &places {
                let found = bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} is in the {place}");
            }
        }
    }
}

/// The pointer to a setting of the provider.
pub(super) fn setting(name: &str) -> String {
    format!("/identity/providers/{CORP}/{name}")
}

/// Sets the user of the provider, with a claim.
pub(super) fn user_with(claim: &str, value: Value) -> User {
    User::new("ann").claim(claim, value)
}
