//! The headers that tell a client where it stands: the customary `X-RateLimit-*`, and the fields of
//! draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651).

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};

use super::{Decision, strictest};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// Renders the headers for these decisions; `now_unix` is the time since the epoch. Shadow limits
/// do not show; without any other limit there is no header.
pub fn headers(decisions: &[Decision], now_unix: Duration) -> Vec<(HeaderName, HeaderValue)> {
    let Some(strictest) = strictest(decisions) else {
        return Vec::new();
    };
    let whole_at = whole_seconds(now_unix + strictest.reset_after);
    let mut rendered = Vec::with_capacity(6);
    rendered.push((LIMIT, strictest.limit.quota().into()));
    rendered.push((REMAINING, strictest.remaining.into()));
    rendered.push((RESET, whole_at.into()));
    let room = || String::with_capacity(64 * decisions.len());
    let (mut policies, mut standings) = (room(), room());
    for decision in decisions.iter().filter(|d| !d.limit.shadow) {
        append(decision, &mut policies, &mut standings);
    }
    for (name, list) in [(POLICY, policies), (STANDING, standings)] {
        if let Ok(value) = HeaderValue::try_from(list) {
            rendered.push((name, value));
        }
    }
    if let Some(seconds) = retry_after(decisions) {
        rendered.push((RETRY_AFTER, seconds.into()));
    }
    rendered
}

/// How long a refused client has to wait: whole seconds, rounded up, at least 1. `None`: not
/// refused.
fn retry_after(decisions: &[Decision]) -> Option<u64> {
    let longest = decisions
        .iter()
        .filter(|decision| decision.refuses())
        .map(|decision| decision.retry_after)
        .max()?;
    Some(whole_seconds(longest).max(1))
}

fn append(decision: &Decision, policies: &mut String, standings: &mut String) {
    if !policies.is_empty() {
        policies.push_str(", ");
        standings.push_str(", ");
    }
    let window = whole_seconds(decision.limit.window);
    let until = if decision.allowed {
        whole_seconds(decision.reset_after)
    } else {
        whole_seconds(decision.retry_after).max(1)
    };
    let mut number = itoa::Buffer::new();
    let mut add = |to: &mut String, parts: [(&str, u64); 2]| {
        quote(to, &decision.limit.name);
        for (part, value) in parts {
            to.push_str(part);
            to.push_str(number.format(value));
        }
    };
    add(policies, [(";q=", decision.limit.quota()), (";w=", window)]);
    add(standings, [(";r=", decision.remaining), (";t=", until)]);
}

/// Writes a name as a structured field's String (RFC 9651, section 3.3.3). A String holds visible
/// ASCII only: what it cannot hold shows as `?`.
fn quote(to: &mut String, name: &str) {
    to.push('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => to.extend(['\\', character]),
            ' '..='~' => to.push(character),
            _ => to.push('?'),
        }
    }
    to.push('"');
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
