//! The gateway's own source, split into code, comments and literals.

use std::path::Path;

/// A source file, with its path from the repository's root.
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

/// Every Rust file below a folder of the repository, sorted by path.
pub fn rust_files(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|is| is == "rs") {
                let name = path.strip_prefix(root).unwrap();
                files.push(SourceFile {
                    path: name.to_string_lossy().into_owned(),
                    text: std::fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Piece {
    Code,
    Comment,
    Literal,
}

/// Splits source text into its pieces, in order and without gaps.
pub fn pieces(text: &str) -> Vec<(Piece, &str)> {
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let found = match next {
            '/' if rest.starts_with("//") => {
                let line = rest.find('\n').unwrap_or(rest.len());
                Some((Piece::Comment, line))
            }
            '/' if rest.starts_with("/*") => {
                let end = rest.find("*/").expect("comments end");
                Some((Piece::Comment, end + 2))
            }
            'b' | 'c' | 'r' | '"' => string(rest).map(|length| (Piece::Literal, length)),
            '\'' => character(rest).map(|length| (Piece::Literal, length)),
            _ => None,
        };
        let Some((piece, length)) = found else {
            at += next.len_utf8();
            continue;
        };
        pieces.push((Piece::Code, &text[start..at]));
        pieces.push((piece, &rest[..length]));
        at += length;
        start = at;
    }
    pieces.push((Piece::Code, &text[start..]));
    pieces
}

/// The length of a string literal.
fn string(text: &str) -> Option<usize> {
    let open = text.find(|c: char| !"bcr".contains(c))?;
    let raw = text[..open].contains('r');
    let hashes = text[open..].len() - text[open..].trim_start_matches('#').len();
    let body = open + hashes + 1;
    if open > 2 || !text[open + hashes..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(body + text[body..].find(&end)? + end.len());
    }
    let mut escaped = false;
    let end = text[body..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some(body + end + 1)
}

/// The length of a character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

/// The code alone: without comments, and with empty literals.
pub fn code(text: &str) -> String {
    let mut code = String::new();
    for (piece, text) in pieces(text) {
        match piece {
            Piece::Code => code.push_str(text),
            Piece::Literal => code.push_str("\"\""),
            Piece::Comment => {}
        }
    }
    code
}

/// Code split into that of production and the items marked as tests.
pub fn without_test_items(code: &str) -> (String, Vec<&str>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut production, mut tests, mut rest) = (String::new(), Vec::new(), code);
    while let Some(at) = rest.find(MARK) {
        let end = at + MARK.len() + item_length(&rest[at + MARK.len()..]);
        production.push_str(&rest[..at]);
        tests.push(&rest[at..end]);
        rest = &rest[end..];
    }
    production.push_str(rest);
    (production, tests)
}

/// The length of an item: up to its semicolon, or to the brace that closes its body.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    let end = code.find(|c| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        depth == 0 && matches!(c, ';' | '}')
    });
    end.expect("items end") + 1
}

/// The words of code: identifiers and keywords.
pub fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

#[test]
fn source_is_split_into_code_comments_and_literals() {
    let text = r##"let a = "//\"x"; // "b
        let c: &'a str = r#"a"b"#; /* d */ let e = ['\'', '"', b'x'];"##;
    assert_eq!(
        code(text),
        "let a = \"\"; \n        let c: &'a str = \"\";  let e = [\"\", \"\", b\"\"];"
    );
    let whole: String = pieces(text).into_iter().map(|(_, text)| text).collect();
    assert_eq!(whole, text);
}

#[test]
fn only_test_items_are_left_out() {
    let code = "a; #[cfg(test)] mod tests; b; #[cfg(test)] #[expect(x)] fn c([d; 2]) { {} } e";
    let (production, tests) = without_test_items(code);
    assert_eq!(production, "a;  b;  e");
    assert_eq!(tests.len(), 2);
}
