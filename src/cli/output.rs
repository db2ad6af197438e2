//! How answers look: aligned columns for people, JSON for programs. What users chose themselves
//! (names, user agents, addresses of devices) must not steer the terminal that it is shown on.

use serde_json::Value;

/// A table with a header; no header for nothing.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| sanitize_line(cell)).collect())
        .collect();
    let width = |column: usize, title: &str| {
        let cells = clean.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(title.len())
    };
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| width(column, title))
        .collect();
    let mut shown = String::new();
    push_row(&mut shown, header.iter().copied(), &widths);
    for row in &clean {
        push_row(&mut shown, row.iter().map(String::as_str), &widths);
    }
    shown
}

fn push_row<'a>(shown: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let start = shown.len();
    for (cell, width) in cells.zip(widths) {
        shown.push_str(cell);
        let pad = (width + 2).saturating_sub(cell.chars().count());
        shown.extend(std::iter::repeat_n(' ', pad));
    }
    let end = shown.get(start..).map_or(0, |line| line.trim_end().len());
    shown.truncate(start + end);
    shown.push('\n');
}

/// One fact a line, the values aligned.
pub(super) fn key_values(facts: &[(&str, String)]) -> String {
    let widest = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts
        .iter()
        .map(|(name, value)| format!("{name:<widest$}  {}\n", sanitize_line(value)))
        .collect()
}

/// Pretty JSON, and a line's end. Characters that could steer a terminal are escaped as JSON escapes
/// them, so a program reads the very same text.
pub(super) fn json(value: &Value) -> String {
    let mut shown = String::new();
    for character in format!("{value:#}\n").chars() {
        if character == '\n' || !is_unsafe_for_terminal(character) {
            shown.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            shown.push_str(&format!("\\u{unit:04x}"));
        }
    }
    shown
}

/// Text as one line that does nothing to a terminal: what would is shown as `\u{1b}`.
pub(super) fn sanitize_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe_for_terminal(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, and those that turn the direction of text, hide it or end lines.
fn is_unsafe_for_terminal(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text, number or list at a JSON pointer; `-` for nothing.
pub(super) fn text_at(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => (if *flag { "yes" } else { "no" }).to_owned(),
        Some(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|item| item.as_str().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(","),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let shown = table(
            &["ID", "EMAIL", "ROLES"],
            &[row(["1", "ann@example.com", "-"]), row(["22", "é", "a,b"])],
        );
        let expected = "\
ID  EMAIL            ROLES
1   ann@example.com  -
22  é                a,b
";
        assert_eq!(shown, expected);
        assert_eq!(
            key_values(&[("id", "1".to_owned()), ("email", "x".to_owned())]),
            "id     1\nemail  x\n"
        );
    }

    #[test]
    fn output_has_no_terminal_control_characters() {
        for (text, expected) in [
            ("Firefox / Línux 🦊", "Firefox / Línux 🦊"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\nb\r\u{7f}", "a\\u{a}b\\u{d}\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gnp.exe\u{2066}", "\\u{202e}gnp.exe\\u{2066}"),
        ] {
            assert_eq!(sanitize_line(text), expected);
            let value = serde_json::json!({ "agent": text });
            let shown = json(&value);
            let unsafe_ones = shown
                .chars()
                .filter(|c| is_unsafe_for_terminal(*c) && *c != '\n');
            assert_eq!(unsafe_ones.count(), 0, "{shown}");
            let read: Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, value);
        }
    }

    #[test]
    fn absent_values_are_dashes() {
        let value = serde_json::json!({"a": null, "b": [], "c": ["x", "y"], "d": 3, "e": true});
        let all: Vec<String> = ["/a", "/b", "/c", "/d", "/e", "/f"]
            .map(|pointer| text_at(&value, pointer))
            .to_vec();
        assert_eq!(all, ["-", "-", "x,y", "3", "yes", "-"]);
    }
}
