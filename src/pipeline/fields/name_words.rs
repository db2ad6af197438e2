//! Names of fields, eight characters at a time.

#![expect(
    clippy::indexing_slicing,
    reason = "in a function that runs when it is compiled"
)]

/// Characters of the longest name that is compared by words.
pub(super) const MAX_KNOWN: usize = WORDS * WORD;
const WORDS: usize = 4;
const WORD: usize = size_of::<u64>();
/// The top bit of each byte.
const TOP: u64 = each(0x80);

/// The first characters of a name of letters, digits and `-`, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameWords([u64; WORDS]);

impl NameWords {
    pub(super) const EMPTY: NameWords = NameWords([0; WORDS]);

    /// A name in lower case of at most [`MAX_KNOWN`] characters.
    pub(super) const fn of_known(name: &[u8]) -> NameWords {
        let mut words = [0; WORDS];
        let mut at = 0;
        while at < name.len() {
            words[at / WORD] |= (name[at] as u64) << (8 * (at % WORD));
            at += 1;
        }
        NameWords(words)
    }

    /// Reads letters, digits and `-` up to the first other byte: their number, and the words.
    pub(super) fn at_start(line: &[u8]) -> (usize, NameWords) {
        let mut words = [0; WORDS];
        let mut slots = words.iter_mut();
        let mut length = 0;
        loop {
            let word = load(line.get(length..).unwrap_or_default());
            let count = other_bytes(word).trailing_zeros() / 8;
            if let Some(slot) = slots.next() {
                *slot = (word | each(0x20)) & low_bytes(count);
            }
            length += count as usize;
            if count < WORD as u32 {
                return (length, NameWords(words));
            }
        }
    }
}

const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD])
}

/// The first eight bytes, with zeros for those that are missing.
fn load(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let add = |word, byte: &u8| (word << 8) | u64::from(*byte);
            bytes.iter().rev().fold(0, add)
        }
    }
}

/// The first bytes of a word.
fn low_bytes(count: u32) -> u64 {
    u64::MAX.checked_shr(8 * (WORD as u32 - count)).unwrap_or(0)
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
