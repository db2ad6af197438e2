//! `Date` (RFC 9110, section 6.6.1), which a gateway adds to responses that lack it.

use std::cell::RefCell;

use super::timer_wheel;
use crate::clock;

/// Ticks for which a text is used: half a second.
const REUSE: u32 = 10;

/// A worker's text of the current second.
#[derive(Default)]
struct CachedDate {
    line: Vec<u8>,
    tick: u32,
}

thread_local! {
    static CACHED: RefCell<CachedDate> = RefCell::default();
}

/// Writes the field.
pub fn write(out: &mut Vec<u8>) {
    CACHED.with_borrow_mut(|cached| {
        let now = timer_wheel::now();
        if cached.line.is_empty() || now.wrapping_sub(cached.tick) >= REUSE {
            let date = httpdate::fmt_http_date(clock::system_time());
            cached.line = format!("date: {date}\r\n").into_bytes();
            cached.tick = now;
        }
        out.extend_from_slice(&cached.line);
    });
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;

    #[test]
    fn date_is_the_present() {
        let mut out = Vec::new();
        write(&mut out);
        write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let (one, two) = text.split_at(text.len() / 2);
        assert_eq!(one, two);
        let date = one.strip_prefix("date: ").unwrap().trim_end();
        let date = httpdate::parse_http_date(date).unwrap();
        let age = clock::system_time().duration_since(date).unwrap();
        assert!(age < Duration::from_secs(2), "{age:?}");
    }
}
