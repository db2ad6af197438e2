//! Rate-limit response headers.
//!
//! `X-RateLimit-*` as commonly sent, and the structured fields (RFC 9651) of
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Decision, LimitDefinition, strictest};

/// The names, in the order in which they are sent.
static NAMES: [HeaderName; 5] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("ratelimit"),
];

/// The limit headers of one response. Shadow limits are left out.
#[derive(Debug, Clone, Copy)]
pub struct LimitHeaders<'a> {
    decisions: &'a [Decision],
    strictest: &'a Decision,
    now_unix: Duration,
}

impl<'a> LimitHeaders<'a> {
    /// The headers for these decisions; `None` where there is no limit to report. `now_unix` returns
    /// the time since the Unix epoch by the clock that counts them.
    pub fn of(
        decisions: &'a [Decision],
        now_unix: impl FnOnce() -> Duration,
    ) -> Option<LimitHeaders<'a>> {
        Some(LimitHeaders {
            strictest: strictest(decisions)?,
            decisions,
            now_unix: now_unix(),
        })
    }

    /// Whether a header of this name, in any case, is one of them.
    pub fn has_name(name: &[u8]) -> bool {
        let mut names = NAMES.iter();
        names.any(|own| own.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Appends them to the head of an HTTP/1.1 message, without those that `keeps` rejects.
    pub fn write_lines(&self, head: &mut Vec<u8>, keeps: impl Fn(&HeaderName) -> bool) {
        head.reserve(160 + 96 * self.decisions.len());
        if NAMES.iter().all(&keeps) {
            return self.write_all_lines(head);
        }
        for (index, name) in NAMES.iter().enumerate().filter(|(_, name)| keeps(name)) {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            self.write_value(index, head);
            head.extend_from_slice(b"\r\n");
        }
    }

    /// Appends all lines: parts of constant length are stored without a call.
    fn write_all_lines(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(&self.strictest.limit.header_texts.start);
        self.write_value(1, head);
        head.extend_from_slice(b"\r\nx-ratelimit-reset: ");
        self.write_value(2, head);
        head.extend_from_slice(b"\r\nratelimit-policy: ");
        self.write_value(3, head);
        head.extend_from_slice(b"\r\nratelimit: ");
        self.write_value(4, head);
        head.extend_from_slice(b"\r\n");
    }

    /// The same headers as names and values, which share one buffer.
    pub fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut values = Vec::with_capacity(64 + 96 * self.decisions.len());
        let ranges = std::array::from_fn::<_, 5, _>(|index| {
            let start = values.len();
            self.write_value(index, &mut values);
            start..values.len()
        });
        let values = Bytes::from(values);
        NAMES.iter().zip(ranges).filter_map(move |(name, range)| {
            let value = HeaderValue::from_maybe_shared(values.slice(range)).ok()?;
            Some((name.clone(), value))
        })
    }

    /// Appends the value of the header with this index in [`NAMES`].
    fn write_value(&self, index: usize, out: &mut Vec<u8>) {
        let strictest = self.strictest;
        match index {
            0 => write_number(out, strictest.limit.quota()),
            1 => write_number(out, strictest.remaining),
            2 => {
                let reset_at = self.now_unix + strictest.reset_after;
                write_number(out, seconds_rounded_up(reset_at));
            }
            3 => write_list(out, self.decisions, |out, decision| {
                out.extend_from_slice(decision.limit.header_texts.policy());
            }),
            _ => write_list(out, self.decisions, write_state),
        }
    }
}

/// Writes a list with one member for each limit that is not a shadow.
fn write_list(
    out: &mut Vec<u8>,
    decisions: &[Decision],
    mut write_member: impl FnMut(&mut Vec<u8>, &Decision),
) {
    let mut is_first = true;
    for decision in decisions.iter().filter(|it| !it.limit.shadow) {
        if !is_first {
            out.extend_from_slice(b", ");
        }
        write_member(out, decision);
        is_first = false;
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
    /// The line with the quota, and the name of the next one.
    start: Box<[u8]>,
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
        let mut start = b"x-ratelimit-limit: ".to_vec();
        write_number(&mut start, limit.quota());
        start.extend_from_slice(b"\r\nx-ratelimit-remaining: ");
        HeaderTexts {
            start: start.into(),
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
    match value {
        // What is left for a request that is over a limit.
        0 => out.push(b'0'),
        _ => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
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
