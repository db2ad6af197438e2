//! Times of log lines.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::number::three_digits;

thread_local! {
    static LAST_SECOND: Cell<FormattedSecond> = const {
        Cell::new(FormattedSecond { second: u64::MAX, text: [b'-'; 20] })
    };
}

/// A second and its text, up to the dot before the fraction. The lines of one second share it.
#[derive(Clone, Copy)]
struct FormattedSecond {
    second: u64,
    text: [u8; 20],
}

impl FormattedSecond {
    fn new(second: u64) -> FormattedSecond {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let text = humantime::format_rfc3339_seconds(at).to_string();
        let text = text.replace('Z', ".");
        FormattedSecond {
            second,
            text: text.as_bytes().try_into().unwrap_or([b'-'; 20]),
        }
    }
}

/// Writes a time, given since the epoch, in RFC 3339 form with milliseconds.
pub(super) fn write(out: &mut Vec<u8>, time: Duration) {
    write_second(out, time);
    let [a, b, c] = three_digits(time.subsec_millis());
    out.extend_from_slice(&[a, b, c, b'Z']);
}

/// Writes the second of a time, and the dot before the milliseconds.
pub(super) fn write_second(out: &mut Vec<u8>, time: Duration) {
    let mut last = LAST_SECOND.get();
    if last.second != time.as_secs() {
        last = FormattedSecond::new(time.as_secs());
        LAST_SECOND.set(last);
    }
    out.extend_from_slice(&last.text);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_equal_those_of_the_library(
            millis in prop::collection::vec(0..4_000_000_000_000u64, 1..5),
        ) {
            for millis in millis {
                for at in [millis, millis + 1, millis + 1000] {
                    let time = Duration::from_millis(at);
                    let mut out = Vec::new();
                    write(&mut out, time);
                    let at = SystemTime::UNIX_EPOCH + time;
                    let expected = humantime::format_rfc3339_millis(at).to_string();
                    prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
                }
            }
        }
    }
}
