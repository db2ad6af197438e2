//! Lists of names, of roles and scopes, as one text: `"\nadmin\neditor\n"`, with `%` and the line feed
//! escaped in the names, so that a script finds a name by plain search.

/// Writes a list of names.
pub(super) fn list(names: &[String]) -> String {
    let mut text = String::new();
    for name in names {
        if text.is_empty() {
            text.push('\n');
        }
        if name.is_empty() {
            text.push('%');
        }
        for character in name.chars() {
            match character {
                '%' => text.push_str("%25"),
                '\n' => text.push_str("%0A"),
                other => text.push(other),
            }
        }
        text.push('\n');
    }
    text
}

/// Reads it back.
pub(super) fn names(list: &str) -> Option<Vec<String>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let inner = list.strip_prefix('\n')?.strip_suffix('\n')?;
    let read = |name: &str| match name {
        "%" => String::new(),
        name => name.replace("%0A", "\n").replace("%25", "%"),
    };
    Some(inner.split('\n').map(read).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lists_read_back_as_they_were_written() {
        for case in [
            vec![],
            vec![""],
            vec!["admin"],
            vec!["admin", "", "a\nb", "100%", "%0A", "%25", "%"],
        ] {
            let case: Vec<String> = case.into_iter().map(str::to_owned).collect();
            assert_eq!(names(&list(&case)).unwrap(), case);
        }
    }
}
