//! Common passwords, which attackers try first.

/// Lower case, sorted by bytes, one per line: the 10,000 most frequent of at least twelve
/// characters, and those of at least eight among the 50,000 most frequent of all, in the list of
/// ten million leaked passwords that Mark Burnett released into the public domain in 2015.
const LIST: &str = include_str!("common_passwords.txt");

/// Whether a password is on the list, ignoring case.
pub(super) fn is_common(password: &str) -> bool {
    let wanted = password.to_ascii_lowercase();
    let (mut from, mut to) = (0, LIST.len());
    while from < to {
        let middle = from.midpoint(to);
        let (start, line) = line_at(middle);
        match line.cmp(wanted.as_str()) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => from = start + line.len() + 1,
            std::cmp::Ordering::Greater => to = start,
        }
    }
    false
}

/// Returns the line that contains this byte offset, and its start. The list is ASCII.
fn line_at(place: usize) -> (usize, &'static str) {
    let before = LIST.get(..place).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let rest = LIST.get(start..).unwrap_or_default();
    (start, rest.split('\n').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_sorted_and_every_line_is_found() {
        let lines: Vec<&str> = LIST.lines().collect();
        assert!(lines.is_sorted());
        assert!(lines.len() > 20_000);
        assert!(lines.iter().filter(|line| line.len() >= 12).count() >= 9_000);
        for line in lines {
            assert!(line.len() >= 8 && line.is_ascii(), "{line}");
            assert!(is_common(line), "{line}");
        }
    }

    #[test]
    fn lookup_ignores_case() {
        for common in ["password", "PassWord1", "Qwerty123456", "1QAZ2WSX3EDC"] {
            assert!(is_common(common), "{common}");
        }
        for other in [
            "",
            "~",
            "\n",
            "a",
            "correct horse battery",
            "pässword1234",
            "zzzzzzzzzzzzzzzzzz9",
        ] {
            assert!(!is_common(other), "{other}");
        }
    }
}
