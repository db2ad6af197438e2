//! The headers that tell a client where it stands: the customary `X-RateLimit-*`, and the fields of
//! draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651).

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};

use super::{Decision, strictest};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// Renders the headers for these decisions; `now_unix` is the time since the epoch. Shadow limits
/// do not show; without any other limit there is no header. All values share one buffer.
pub fn render_headers(
    decisions: &[Decision],
    now_unix: Duration,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(strictest) = strictest(decisions) else {
        return Vec::new();
    };
    let mut text = BytesMut::with_capacity(64 + 160 * decisions.len());
    let mut rendered = Vec::with_capacity(6);
    let mut end = |name: HeaderName, text: &mut BytesMut| {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.split().freeze()) {
            rendered.push((name, value));
        }
    };
    let whole_at = seconds_rounded_up(now_unix + strictest.reset_after);
    for (name, value) in [
        (LIMIT, strictest.limit.quota()),
        (REMAINING, strictest.remaining),
        (RESET, whole_at),
    ] {
        write_number(&mut text, value);
        end(name, &mut text);
    }
    for (name, parameters) in [
        (POLICY, policy as fn(&Decision) -> [(&'static str, u64); 2]),
        (STANDING, standing),
    ] {
        for decision in decisions.iter().filter(|d| !d.limit.shadow) {
            if !text.is_empty() {
                text.extend_from_slice(b", ");
            }
            quote(&mut text, &decision.limit.name);
            for (parameter, value) in parameters(decision) {
                text.extend_from_slice(parameter.as_bytes());
                write_number(&mut text, value);
            }
        }
        end(name, &mut text);
    }
    if let Some(seconds) = retry_after(decisions) {
        write_number(&mut text, seconds);
        end(RETRY_AFTER, &mut text);
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
    Some(seconds_rounded_up(longest).max(1))
}

fn policy(decision: &Decision) -> [(&'static str, u64); 2] {
    let window = seconds_rounded_up(decision.limit.window);
    [(";q=", decision.limit.quota()), (";w=", window)]
}

fn standing(decision: &Decision) -> [(&'static str, u64); 2] {
    let until = if decision.allowed {
        seconds_rounded_up(decision.reset_after)
    } else {
        seconds_rounded_up(decision.retry_after).max(1)
    };
    [(";r=", decision.remaining), (";t=", until)]
}

fn write_number(to: &mut BytesMut, value: u64) {
    to.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a name as a structured field's String (RFC 9651, section 3.3.3). A String holds visible
/// ASCII only: what it cannot hold shows as `?`.
fn quote(to: &mut BytesMut, name: &str) {
    to.put_u8(b'"');
    for character in name.chars() {
        match character {
            '"' | '\\' => to.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => to.put_u8(character as u8),
            _ => to.put_u8(b'?'),
        }
    }
    to.put_u8(b'"');
}

fn seconds_rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
