//! Rate-limit response headers.
//!
//! `X-RateLimit-*` as commonly sent, and the structured fields (RFC 9651) of
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue};

use super::{Decision, strictest};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const CURRENT: HeaderName = HeaderName::from_static("ratelimit");

/// Renders the headers for these decisions; `now_unix` is the time since the Unix epoch.
///
/// Shadow limits are left out; if there are no others, no header is rendered. All values share one
/// buffer.
pub fn render_headers(
    decisions: &[Decision],
    now_unix: Duration,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(strictest) = strictest(decisions) else {
        return Vec::new();
    };
    let mut buffer = BytesMut::with_capacity(64 + 160 * decisions.len());
    let mut rendered = Vec::with_capacity(5);
    let mut push = |name: HeaderName, buffer: &mut BytesMut| {
        if let Ok(value) = HeaderValue::from_maybe_shared(buffer.split().freeze()) {
            rendered.push((name, value));
        }
    };
    let reset_at = seconds_rounded_up(now_unix + strictest.reset_after);
    for (name, value) in [
        (LIMIT, strictest.limit.quota()),
        (REMAINING, strictest.remaining),
        (RESET, reset_at),
    ] {
        write_number(&mut buffer, value);
        push(name, &mut buffer);
    }
    for (name, parameters) in [
        (POLICY, policy as fn(&Decision) -> [(&'static str, u64); 2]),
        (CURRENT, current),
    ] {
        for decision in decisions.iter().filter(|d| !d.limit.shadow) {
            if !buffer.is_empty() {
                buffer.extend_from_slice(b", ");
            }
            quote(&mut buffer, &decision.limit.name);
            for (parameter, value) in parameters(decision) {
                buffer.extend_from_slice(parameter.as_bytes());
                write_number(&mut buffer, value);
            }
        }
        push(name, &mut buffer);
    }
    rendered
}

fn policy(decision: &Decision) -> [(&'static str, u64); 2] {
    let window = seconds_rounded_up(decision.limit.window);
    [(";q=", decision.limit.quota()), (";w=", window)]
}

fn current(decision: &Decision) -> [(&'static str, u64); 2] {
    let seconds = if decision.allowed {
        seconds_rounded_up(decision.reset_after)
    } else {
        seconds_rounded_up(decision.retry_after).max(1)
    };
    [(";r=", decision.remaining), (";t=", seconds)]
}

fn write_number(buffer: &mut BytesMut, value: u64) {
    buffer.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a name as a structured field String (RFC 9651, section 3.3.3).
///
/// A String holds visible ASCII only; other characters become `?`.
fn quote(buffer: &mut BytesMut, name: &str) {
    buffer.put_u8(b'"');
    for character in name.chars() {
        match character {
            '"' | '\\' => buffer.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => buffer.put_u8(character as u8),
            _ => buffer.put_u8(b'?'),
        }
    }
    buffer.put_u8(b'"');
}

fn seconds_rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
