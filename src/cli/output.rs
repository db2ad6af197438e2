//! Output formats: aligned columns and JSON. Text chosen by users, such as names and user agents,
//! must not control the terminal.

use serde_json::Value;

use crate::telemetry::printable::{is_unsafe_for_terminal, sanitize_line};

/// Formats a table with a header.
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
    let mut output = String::new();
    push_row(&mut output, header.iter().copied(), &widths);
    for row in &clean {
        push_row(&mut output, row.iter().map(String::as_str), &widths);
    }
    output
}

fn push_row<'a>(output: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let start = output.len();
    for (cell, width) in cells.zip(widths) {
        output.push_str(cell);
        let pad = (width + 2).saturating_sub(cell.chars().count());
        output.extend(std::iter::repeat_n(' ', pad));
    }
    let end = output.get(start..).map_or(0, |line| line.trim_end().len());
    output.truncate(start + end);
    output.push('\n');
}

/// Formats one pair per line, with aligned values.
pub(super) fn key_values(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:<widest$}  {}\n", sanitize_line(value)))
        .collect()
}

/// Formats indented JSON. Characters that could control a terminal are escaped, so that a program
/// reads the same text.
pub(super) fn json(value: &Value) -> String {
    escape_json(&format!("{value:#}"))
}

/// Escapes formatted JSON in the same way, and ends its last line.
pub(super) fn escape_json(text: &str) -> String {
    let mut output = String::new();
    for character in text.chars().chain(['\n']) {
        if character == '\n' || !is_unsafe_for_terminal(character) {
            output.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            output.push_str(&format!("\\u{unit:04x}"));
        }
    }
    output
}

/// Formats the string, number or list at a JSON pointer; `-` if absent.
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

/// Formats the time at a JSON pointer, to the second.
pub(super) fn time_at(value: &Value, pointer: &str) -> String {
    let time = text_at(value, pointer);
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let output = table(
            &["ID", "EMAIL", "ROLES"],
            &[row(["1", "ann@example.com", "-"]), row(["22", "é", "a,b"])],
        );
        let expected = "\
ID  EMAIL            ROLES
1   ann@example.com  -
22  é                a,b
";
        assert_eq!(output, expected);
        assert_eq!(
            key_values(&[("id", "1".to_owned()), ("email", "x".to_owned())]),
            "id     1\nemail  x\n"
        );
    }

    #[test]
    fn output_has_no_terminal_control_characters() {
        for text in [
            "Firefox / Línux 🦊",
            "\u{1b}[2J\u{7}",
            "a\nb\r\u{7f}",
            "\u{9b}31m",
            "\u{202e}gnp.exe\u{2066}",
        ] {
            let value = serde_json::json!({ "agent": text });
            let output = json(&value);
            let unsafe_ones = output
                .chars()
                .filter(|c| is_unsafe_for_terminal(*c) && *c != '\n');
            assert_eq!(unsafe_ones.count(), 0, "{output}");
            let parsed: Value = serde_json::from_str(&output).unwrap();
            assert_eq!(parsed, value);
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
