//! Limits, and individual counters.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::super::response;
use super::AdminState;
use crate::events::{Event, EventKind};
use crate::identity::{self, limit_address_key, sign_in_limits};
use crate::limits::{Algorithm, Charge, Counter, Decision, KeyPart, Limit, OnOutage};
use crate::pipeline::admission::counter_from_key_parts;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::{IdentitySource, Reloadable};

/// `GET /admin/limits`: the configured limits, then the built-in sign-in limits.
pub(super) async fn list(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    let limits: Vec<Value> = all_limits(&snapshot.settings)
        .iter()
        .map(|limit| limit_view(limit))
        .collect();
    response::data(&json!({"limits": limits}))
}

fn all_limits(settings: &Reloadable) -> Vec<Arc<Limit>> {
    let built_in = sign_in_limits(&settings.identity);
    settings.limits.iter().cloned().chain(built_in).collect()
}

fn limit_view(limit: &Limit) -> Value {
    let (algorithm, burst) = match limit.algorithm {
        Algorithm::SlidingWindow => ("sliding_window", None),
        Algorithm::SlidingLog => ("sliding_log", None),
        Algorithm::TokenBucket { burst } => ("token_bucket", Some(burst)),
    };
    let key: Vec<String> = limit.key.iter().map(part_name).collect();
    json!({
        "name": &*limit.name,
        "algorithm": algorithm,
        "burst": burst,
        "limit": limit.limit,
        "window": humantime::format_duration(limit.window).to_string(),
        "key": key,
        "roles": limit.roles,
        "except_roles": limit.except_roles,
        "on_outage": match limit.on_outage {
            OnOutage::Local => "local",
            OnOutage::Allow => "allow",
            OnOutage::Deny => "deny",
        },
        "consistency": if limit.leased { "leased" } else { "exact" },
        "shadow": limit.shadow,
    })
}

fn part_name(part: &KeyPart) -> String {
    match part {
        KeyPart::Ip => "ip".to_owned(),
        KeyPart::User => "user".to_owned(),
        KeyPart::Session => "session".to_owned(),
        KeyPart::Token => "token".to_owned(),
        KeyPart::Route => "route".to_owned(),
        KeyPart::Header(name) => format!("header:{name}"),
    }
}

/// `GET /admin/limits/{name}/{key}`: the state of one counter, without charging it.
pub(super) async fn peek(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, Rejection> {
    let charge = charge_for_key(&snapshot.settings, &name, &key)?;
    let decision = state.store.peek_limit(&charge).await?;
    Ok(response::data(&counter_view(&name, &key, &decision)))
}

fn counter_view(name: &str, key: &str, decision: &Decision) -> Value {
    json!({
        "name": name,
        "key": key,
        "allowed": decision.allowed,
        "remaining": decision.remaining,
        "reset_after_seconds": decision.reset_after.as_secs_f64(),
        "retry_after_seconds": decision.retry_after.as_secs_f64(),
    })
}

/// `DELETE /admin/limits/{name}/{key}`: resets one counter.
pub(super) async fn reset(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, Rejection> {
    let charge = charge_for_key(&snapshot.settings, &name, &key)?;
    state.store.reset_limit(&charge).await?;
    for also in charges_of_same_user(&state, &snapshot.settings, &charge.limit, &key).await? {
        state.store.reset_limit(&also).await?;
    }
    state
        .events
        .record(Event::new(EventKind::LimitReset).detail(charge.limit.name.to_string()));
    Ok(response::no_content())
}

/// Returns the counters under which failed sign-ins to the same account are counted by name, so
/// that resetting a user ID resets the account's names as well.
async fn charges_of_same_user(
    state: &AdminState,
    settings: &Reloadable,
    limit: &Arc<Limit>,
    key: &str,
) -> Result<Vec<Charge>, Rejection> {
    let built_in = sign_in_limits(&settings.identity);
    let counts_accounts = limit.key.first() == Some(&KeyPart::User)
        && built_in.iter().any(|one| one.name == limit.name)
        && settings.identity.source == IdentitySource::Builtin;
    let mut texts = split_key(limit, key)?;
    let Some(first) = texts.first().filter(|_| counts_accounts) else {
        return Ok(Vec::new());
    };
    let Some(user) = state.accounts.user(first).await? else {
        return Ok(Vec::new());
    };
    let mut charges = Vec::new();
    for name in identity::failure_counter_keys(&user) {
        if let Some(first) = texts.first_mut() {
            *first = name;
        }
        charges.push(Charge {
            counter: identity::sign_in_counter(limit, &texts),
            limit: Arc::clone(limit),
        });
    }
    Ok(charges)
}

/// Resolves the counter named by the comma-separated parts of its key.
fn charge_for_key(settings: &Reloadable, name: &str, key: &str) -> Result<Charge, Rejection> {
    let named = |limit: &&Arc<Limit>| &*limit.name == name;
    let built_in = sign_in_limits(&settings.identity);
    let (limit, counter): (_, fn(&Limit, &[String]) -> Counter) =
        match settings.limits.iter().find(named) {
            Some(limit) => (limit, counter_from_key_parts),
            None => (
                built_in.iter().find(named).ok_or(Refusal::NotFound)?,
                identity::sign_in_counter,
            ),
        };
    Ok(Charge {
        counter: counter(limit, &split_key(limit, key)?),
        limit: Arc::clone(limit),
    })
}

/// The last part takes the remainder, because a header value may contain commas.
fn split_key(limit: &Limit, key: &str) -> Result<Vec<String>, Rejection> {
    let texts: Vec<&str> = key.splitn(limit.key.len().max(1), ',').collect();
    if texts.len() != limit.key.len() {
        let names: Vec<String> = limit.key.iter().map(part_name).collect();
        let problem = format!("must be {}, joined by commas", names.join(" and "));
        return Err(Rejection::invalid_field("key", problem));
    }
    let canonical = |(part, text): (&KeyPart, &str)| match part {
        KeyPart::Ip => text
            .parse::<IpAddr>()
            .ok()
            .and_then(|ip| limit_address_key(limit, ip))
            .ok_or_else(|| Rejection::invalid_field("key", format!("{text} is not an IP address"))),
        _ => Ok(text.to_owned()),
    };
    limit.key.iter().zip(texts).map(canonical).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::LimitDefinition;

    #[test]
    fn key_is_split_into_its_parts() {
        let limit = |key: Vec<KeyPart>| {
            Limit::new(LimitDefinition {
                name: "x".into(),
                algorithm: Algorithm::SlidingWindow,
                limit: 1,
                window: Duration::from_secs(1),
                key,
                roles: Vec::new(),
                except_roles: Vec::new(),
                on_outage: OnOutage::Local,
                shadow: false,
                leased: false,
            })
        };
        let header = KeyPart::Header(http::header::ACCEPT);
        let cases = [
            (vec![KeyPart::User], "a,b", Some(vec!["a,b"])),
            (
                vec![KeyPart::User, KeyPart::Ip],
                "u,::1",
                Some(vec!["u", "::/64"]),
            ),
            (
                vec![KeyPart::User, header.clone()],
                "u,a,b",
                Some(vec!["u", "a,b"]),
            ),
            (vec![KeyPart::User, header], "u", None),
            (vec![KeyPart::Ip], "localhost", None),
        ];
        for (key, text, expected) in cases {
            let found = split_key(&limit(key), text).ok();
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(found, expected, "{text}");
        }
    }
}
