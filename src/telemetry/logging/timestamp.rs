//! Times of log lines.

use std::cell::RefCell;
use std::time::SystemTime;

use crate::clock;

thread_local! {
    static LAST_SECOND: RefCell<FormattedSecond> = RefCell::default();
}

/// A second and its text, without the fraction and the zone. The lines of one second share it.
#[derive(Default)]
struct FormattedSecond {
    second: u64,
    text: String,
}

/// Writes a time in RFC 3339 form, with milliseconds.
pub(super) fn write(out: &mut Vec<u8>, at: SystemTime) {
    let since = clock::since_epoch(at);
    LAST_SECOND.with_borrow_mut(|last| {
        if last.text.is_empty() || last.second != since.as_secs() {
            last.second = since.as_secs();
            last.text = humantime::format_rfc3339_seconds(at).to_string();
            last.text.pop();
        }
        out.extend_from_slice(last.text.as_bytes());
    });
    out.push(b'.');
    write_zero_padded(out, 1_000 + u64::from(since.subsec_millis()));
    out.push(b'Z');
}

/// Writes a number without its first digit, which only preserves leading zeros.
pub(super) fn write_zero_padded(out: &mut Vec<u8>, value: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    out.extend_from_slice(digits.get(1..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_equal_those_of_the_library(
            millis in prop::collection::vec(0..4_000_000_000_000u64, 1..5),
        ) {
            for millis in millis {
                for at in [millis, millis + 1, millis + 1000] {
                    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
                    let mut out = Vec::new();
                    write(&mut out, at);
                    let expected = humantime::format_rfc3339_millis(at).to_string();
                    prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
                }
            }
        }
    }
}
