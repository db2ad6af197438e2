//! Names of fields, eight characters at a time.

#![expect(
    clippy::indexing_slicing,
    reason = "in a function that runs when it is compiled"
)]

const WORDS: usize = 4;
const WORD: usize = size_of::<u64>();
/// The top bit of each byte.
const TOP: u64 = each(0x80);

/// The first characters of a name of letters, digits and `-`, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameWords([u64; WORDS]);

impl NameWords {
    pub(super) const EMPTY: NameWords = NameWords([0; WORDS]);

    /// A name in lower case of fewer than 32 characters, so that it is not the start of a longer one.
    pub(super) const fn of_known(name: &[u8]) -> NameWords {
        assert!(name.len() < WORDS * WORD);
        let mut words = [0; WORDS];
        let mut at = 0;
        while at < name.len() {
            words[at / WORD] |= (name[at] as u64) << (8 * (at % WORD));
            at += 1;
        }
        NameWords(words)
    }

    /// Selects one of `slots`, a power of two.
    pub(super) const fn select(self, multiplier: u64, slots: usize) -> usize {
        let [one, two, three, _] = self.0;
        let mixed = one ^ two.rotate_left(21) ^ three.rotate_left(42);
        (mixed.wrapping_mul(multiplier) >> (u64::BITS - slots.trailing_zeros())) as usize
    }

    /// Reads letters, digits and `-` up to the first other byte: their number, and the words.
    pub(super) fn at_start(line: &[u8]) -> (usize, NameWords) {
        let mut words = [0; WORDS];
        let mut length = 0;
        for (slot, word) in words.iter_mut().zip(line.as_chunks().0) {
            let word = u64::from_le_bytes(*word);
            let others = other_bytes(word);
            *slot = (word | each(0x20)) & before(others);
            if others != 0 {
                return (
                    length + (others.trailing_zeros() / 8) as usize,
                    NameWords(words),
                );
            }
            length += WORD;
        }
        at_end(line, length, words)
    }
}

/// Reads the last of fewer than eight bytes, or the rest of a longer name than every known.
fn at_end(line: &[u8], length: usize, mut words: [u64; WORDS]) -> (usize, NameWords) {
    let rest = line.get(length..).unwrap_or_default();
    let more = match words.get_mut(length / WORD) {
        Some(slot) => {
            let word = load_last(rest);
            // The zeros behind the bytes are others.
            let others = other_bytes(word);
            *slot = (word | each(0x20)) & before(others);
            (others.trailing_zeros() / 8) as usize
        }
        None => {
            let is_other = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'-';
            rest.iter().position(is_other).unwrap_or(rest.len())
        }
    };
    (length + more, NameWords(words))
}

/// Fewer than eight bytes, with zeros behind them.
fn load_last(rest: &[u8]) -> u64 {
    let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    match (rest.first_chunk(), rest.last_chunk()) {
        (Some(first), Some(last)) => four(first) | four(last) << (8 * (rest.len() - 4)),
        _ => match *rest {
            [] => 0,
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_le_bytes([a, b])),
            [a, b, c, ..] => u64::from(u32::from_le_bytes([a, b, c, 0])),
        },
    }
}

const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD])
}

/// The bytes before the lowest top bit; all, if there is none.
fn before(tops: u64) -> u64 {
    // That bit alone, moved to the bottom of its byte: the bits below it are those of the bytes before.
    ((tops & tops.wrapping_neg()) >> 7).wrapping_sub(1)
}

/// The top bits of the bytes that are neither letter nor digit nor `-`. The sums carry nothing from one
/// byte into the next, because their parts are below 0x80.
fn other_bytes(word: u64) -> u64 {
    let ascii = word & !TOP;
    let lower = ascii | each(0x20);
    let at_least = |bytes: u64, least: u8| bytes + each(0x80 - least);
    let letters = at_least(lower, b'a') & !at_least(lower, b'z' + 1);
    let digits = at_least(ascii, b'0') & !at_least(ascii, b'9' + 1);
    let dashes = !at_least(ascii ^ each(b'-'), 1);
    !(letters | digits | dashes) & TOP | word & TOP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_classified_in_every_place() {
        for at in 0..WORD {
            for byte in 0..=u8::MAX {
                let mut bytes = *b"aZ-09xYq";
                bytes[at] = byte;
                let (length, _) = NameWords::at_start(&bytes);
                let is_plain = byte.is_ascii_alphanumeric() || byte == b'-';
                assert_eq!(length, if is_plain { WORD } else { at }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn words_are_those_of_the_name_in_lower_case() {
        for name in [
            "",
            "a",
            "host",
            "x-request",
            "x-request-id",
            "content-encoding",
        ] {
            let expected = NameWords::of_known(name.as_bytes());
            for line in [
                name.to_owned(),
                name.to_ascii_uppercase(),
                format!("{name}: abcdefgh"),
            ] {
                let read = NameWords::at_start(line.as_bytes());
                assert_eq!(read, (name.len(), expected), "{line}");
            }
        }
        let long = "a".repeat(100);
        assert_eq!(NameWords::at_start(long.as_bytes()).0, 100);
    }
}
