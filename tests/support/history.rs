//! Timed observations of a credential by clients, and a check whether a single gateway could have
//! produced them in some order.

use std::time::{Duration, Instant};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

/// Time within which a revocation is in force on every gateway.
pub const REVOCATION_BOUND: Duration = Duration::from_secs(1);

/// What a client did, with what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientOperation {
    SignIn,
    /// A request that was forwarded.
    Accepted,
    /// A request whose response was that its credential has ended.
    Refused,
    Revoke,
}

/// One thing that a client did: between these moments it happened.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub gateway: usize,
    pub operation: ClientOperation,
    pub called: Instant,
    /// `None`: it is unknown whether it happened, or when.
    pub returned: Option<Instant>,
}

/// A credential is not there, then it is valid, then it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    NotIssued,
    Valid,
    Ended,
}

struct Credential;

impl Specification for Credential {
    type State = State;
    type Operation = ClientOperation;

    fn init() -> State {
        State::NotIssued
    }

    fn apply(deed: &ClientOperation, state: &State) -> (bool, State) {
        match deed {
            ClientOperation::SignIn => (*state == State::NotIssued, State::Valid),
            ClientOperation::Accepted => (*state == State::Valid, *state),
            ClientOperation::Refused => (*state == State::Ended, *state),
            ClientOperation::Revoke => (true, State::Ended),
        }
    }
}

/// Whether each gateway by itself performed these operations in an order that its clients could
/// have observed. A revocation has until [`REVOCATION_BOUND`] after its acknowledgment, except on the gateway
/// that served it; one with an unknown outcome has no deadline.
pub fn is_linearizable(events: &[Event], gateways: usize) -> bool {
    (0..gateways).all(|gateway| is_linearizable_on(gateway, events))
}

fn is_linearizable_on(gateway: usize, events: &[Event]) -> bool {
    let mut moments = Vec::new();
    let mut never = Vec::new();
    for (process, event) in events.iter().enumerate() {
        let deed = event.operation;
        let is_response = matches!(deed, ClientOperation::Accepted | ClientOperation::Refused);
        if is_response && event.gateway != gateway {
            continue;
        }
        let response = (process, Action::Response(deed));
        moments.push((event.called, 0, (process, Action::Call(deed))));
        match event.returned {
            Some(at) if deed == ClientOperation::Revoke && event.gateway != gateway => {
                moments.push((at + REVOCATION_BOUND, 1, response));
            }
            Some(at) => moments.push((at, 1, response)),
            None => never.push(response),
        }
    }
    // At the same moment, calls come before returns, because their true order is unknown.
    moments.sort_by_key(|(at, kind, _)| (*at, *kind));
    let mut actions: Vec<_> = moments.into_iter().map(|(_, _, action)| action).collect();
    actions.extend(never);
    actions.is_empty() || WGLChecker::<Credential>::is_linearizable(History::from_actions(actions))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVES: usize = 0;
    const OTHER: usize = 1;

    /// Deeds with the milliseconds between which they happened.
    fn is_permitted(story: &[(usize, ClientOperation, u64, Option<u64>)]) -> bool {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let events: Vec<Event> = story
            .iter()
            .map(|(gateway, deed, called, returned)| Event {
                gateway: *gateway,
                operation: *deed,
                called: at(*called),
                returned: returned.map(at),
            })
            .collect();
        is_linearizable(&events, 2)
    }

    #[test]
    fn permitted_and_forbidden_histories_are_distinguished() {
        use ClientOperation::{Accepted, Refused, Revoke, SignIn};
        let born = (SERVES, SignIn, 0, Some(10));
        let ended = (SERVES, Revoke, 100, Some(110));
        for (promised, rest) in [
            // At once where it was revoked, and within the second elsewhere.
            (true, vec![(SERVES, Accepted, 105, Some(120))]),
            (false, vec![(SERVES, Accepted, 111, Some(120))]),
            (true, vec![(OTHER, Accepted, 1_100, Some(1_120))]),
            (false, vec![(OTHER, Accepted, 1_111, Some(1_120))]),
            // What was refused stays refused.
            (
                false,
                vec![
                    (OTHER, Refused, 200, Some(210)),
                    (OTHER, Accepted, 220, Some(230)),
                ],
            ),
            // Rejected before its revocation was requested.
            (false, vec![(OTHER, Refused, 50, Some(60))]),
        ] {
            let story: Vec<_> = [born, ended].into_iter().chain(rest.clone()).collect();
            assert_eq!(is_permitted(&story), promised, "{rest:?}");
        }
        let perhaps = (SERVES, Revoke, 100, None);
        assert!(is_permitted(&[
            born,
            perhaps,
            (OTHER, Accepted, 9_000, Some(9_001))
        ]));
        assert!(is_permitted(&[
            born,
            perhaps,
            (OTHER, Refused, 9_000, Some(9_001))
        ]));
        assert!(!is_permitted(&[born, (OTHER, Refused, 20, Some(30))]));
    }
}
