//! Text that others have chosen, as logs and terminals show it.

use crate::auth::token::is_invisible;

/// Makes text a single line without terminal control characters, which are escaped as `\u{1b}`.
pub fn sanitize_line(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe_for_terminal(character) {
            output.extend(character.escape_unicode());
        } else {
            output.push(character);
        }
    }
    output
}

/// Whether a character could start a new line, control a terminal, hide itself, or change the direction
/// of text.
pub fn is_unsafe_for_terminal(character: char) -> bool {
    character.is_control() || is_invisible(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_no_terminal_control_characters() {
        for (text, expected) in [
            ("Firefox / Línux 🦊", "Firefox / Línux 🦊"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\nb\r\u{7f}", "a\\u{a}b\\u{d}\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gnp.exe\u{2066}", "\\u{202e}gnp.exe\\u{2066}"),
        ] {
            assert_eq!(sanitize_line(text), expected);
        }
    }
}
