//! Rate-limit response headers.
//!
//! `X-RateLimit-*` as commonly sent, and the structured fields (RFC 9651) of
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Decision, LimitDefinition, strictest};

/// The headers, in the order in which they are sent.
const NAMES: [HeaderName; 5] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("ratelimit"),
];

/// Renders the headers for these decisions; `now_unix` is the time since the Unix epoch.
///
/// Shadow limits are left out; if there are no others, no header is rendered. All values share one
/// buffer.
pub fn render_headers(
    decisions: &[Decision],
    now_unix: Duration,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut lines = Vec::with_capacity(160 + 96 * decisions.len());
    let Some(values) = write_lines(&mut lines, decisions, now_unix) else {
        return Vec::new();
    };
    let lines = Bytes::from(lines);
    let mut headers = Vec::with_capacity(NAMES.len());
    for (name, range) in NAMES.into_iter().zip(values) {
        if let Ok(value) = HeaderValue::from_maybe_shared(lines.slice(range)) {
            headers.push((name, value));
        }
    }
    headers
}

/// Appends the same headers to the head of an HTTP/1.1 message, as lines.
pub fn append_headers(head: &mut Vec<u8>, decisions: &[Decision], now_unix: Duration) {
    write_lines(head, decisions, now_unix);
}

/// Appends the lines, and returns where in `out` the values are.
fn write_lines(
    out: &mut Vec<u8>,
    decisions: &[Decision],
    now_unix: Duration,
) -> Option<[Range<usize>; 5]> {
    let strictest = strictest(decisions)?;
    let [limit, remaining, reset, policies, states] = &NAMES;
    let reset_at = seconds_rounded_up(now_unix + strictest.reset_after);
    Some([
        write_line(out, limit, |out| write_number(out, strictest.limit.quota())),
        write_line(out, remaining, |out| write_number(out, strictest.remaining)),
        write_line(out, reset, |out| write_number(out, reset_at)),
        write_line(out, policies, |out| {
            write_list(out, decisions, |out, decision| {
                out.extend_from_slice(decision.limit.header_texts.policy());
            });
        }),
        write_line(out, states, |out| write_list(out, decisions, write_state)),
    ])
}

fn write_line(
    out: &mut Vec<u8>,
    name: &HeaderName,
    write_value: impl FnOnce(&mut Vec<u8>),
) -> Range<usize> {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    let start = out.len();
    write_value(out);
    let end = out.len();
    out.extend_from_slice(b"\r\n");
    start..end
}

/// Writes a list with one member for each limit that is not a shadow.
fn write_list(
    out: &mut Vec<u8>,
    decisions: &[Decision],
    mut write_member: impl FnMut(&mut Vec<u8>, &Decision),
) {
    let mut separator: &[u8] = b"";
    for decision in decisions.iter().filter(|it| !it.limit.shadow) {
        out.extend_from_slice(separator);
        write_member(out, decision);
        separator = b", ";
    }
}

fn write_state(out: &mut Vec<u8>, decision: &Decision) {
    let seconds = if decision.allowed {
        seconds_rounded_up(decision.reset_after)
    } else {
        seconds_rounded_up(decision.retry_after).max(1)
    };
    out.extend_from_slice(decision.limit.header_texts.quoted_name());
    out.extend_from_slice(b";r=");
    write_number(out, decision.remaining);
    out.extend_from_slice(b";t=");
    write_number(out, seconds);
}

/// The parts of a limit's headers that are the same in every response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderTexts {
    /// The quoted name, followed by the parameters of the policy.
    policy: Box<[u8]>,
    name_length: usize,
}

impl HeaderTexts {
    pub(super) fn new(limit: &LimitDefinition) -> HeaderTexts {
        let mut policy = Vec::new();
        quote(&mut policy, &limit.name);
        let name_length = policy.len();
        policy.extend_from_slice(b";q=");
        write_number(&mut policy, limit.quota());
        policy.extend_from_slice(b";w=");
        write_number(&mut policy, seconds_rounded_up(limit.window));
        HeaderTexts {
            policy: policy.into(),
            name_length,
        }
    }

    fn policy(&self) -> &[u8] {
        &self.policy
    }

    fn quoted_name(&self) -> &[u8] {
        self.policy.get(..self.name_length).unwrap_or_default()
    }
}

fn write_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a name as a structured field String (RFC 9651, section 3.3.3).
///
/// A String holds visible ASCII only; other characters become `?`.
fn quote(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    for character in name.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => out.push(character as u8),
            _ => out.push(b'?'),
        }
    }
    out.push(b'"');
}

fn seconds_rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
