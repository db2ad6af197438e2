//! The words of the project: identifiers, comments and documents use the terms of the field.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::source::{Piece, SourceFile, code, identifiers, pieces, rust_files};

const FOLDERS: [&str; 4] = ["src", "tests", "bench", "examples"];

/// Words that no identifier has: a response is sent or reported, a user or caller has a name.
const WORDS: [&str; 17] = [
    "answer",
    "answers",
    "answered",
    "answering",
    "tell",
    "tells",
    "telling",
    "told",
    "untold",
    "whom",
    "whoever",
    "whomever",
    "somebody",
    "nobody",
    "anybody",
    "everybody",
    "thereof",
];

/// Identifiers that are public names, by file: keys of the configuration.
const PUBLIC_NAMES: [(&str, &str); 2] = [
    ("src/config/file/backend.rs", "answer"),
    ("src/config/resolve/backend.rs", "answer"),
];

/// Type names that say nothing alone.
const TYPES: [&str; 11] = [
    "Answer", "Desk", "Fault", "Kind", "Known", "Open", "Place", "Said", "Shared", "Told", "Turn",
];

/// Phrases that no comment and no document has.
const PHRASES: [&str; 11] = [
    "somebody",
    "nobody",
    "anybody",
    "everybody",
    "whoever",
    "whomever",
    "whom",
    "so many",
    "so long",
    "so much",
    "thereof",
];

/// Files and folders whose words are not all checked yet.
const UNCHECKED: [&str; 0] = [];

fn sources() -> impl Iterator<Item = SourceFile> {
    let files = FOLDERS.into_iter().flat_map(rust_files);
    files.filter(|file| {
        // It lists the words.
        let own = file.path == "tests/gateway/language.rs";
        !own && !UNCHECKED.iter().any(|path| file.path.starts_with(path))
    })
}

/// The words of an identifier in snake or camel case, in lower case.
fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && lower) {
            words.push(String::new());
        }
        lower = c.is_lowercase();
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words
}

#[test]
fn identifiers_use_the_terms_of_the_field() {
    let mut strays = Vec::new();
    for file in sources() {
        let code = code(&file.text);
        let names: BTreeSet<&str> = identifiers(&code).collect();
        for name in names {
            let stray = words(name).iter().any(|word| WORDS.contains(&&**word));
            if stray && !PUBLIC_NAMES.contains(&(&*file.path, name)) {
                strays.push(format!("{}: {name}", file.path));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn type_names_say_what_they_are() {
    let mut strays = Vec::new();
    for file in sources() {
        let code = code(&file.text);
        let words: Vec<&str> = identifiers(&code).collect();
        for pair in words.windows(2) {
            let declares = matches!(pair[0], "struct" | "enum" | "trait" | "type");
            if declares && TYPES.contains(&pair[1]) {
                strays.push(format!("{}: {}", file.path, pair[1]));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn comments_avoid_banned_phrases() {
    let mut strays = Vec::new();
    for file in sources() {
        for comment in comments(&file.text) {
            strays.extend(phrases(&file.path, &comment));
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn documents_avoid_banned_phrases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<_> = ["", "docs", "config"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|is| is == "md" || is == "yaml")
        })
        .collect();
    documents.sort();
    assert!(documents.len() > 5);
    let mut strays = Vec::new();
    for path in documents {
        let name = path.strip_prefix(root).unwrap().to_string_lossy();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            strays.extend(phrases(&name, line));
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

/// The comments of a file, those of adjacent lines as one.
fn comments(text: &str) -> Vec<String> {
    let (mut comments, mut adjacent) = (Vec::<String>::new(), false);
    for (piece, text) in pieces(text) {
        match (piece, comments.last_mut()) {
            (Piece::Comment, Some(comment)) if adjacent => {
                comment.push('\n');
                comment.push_str(text);
            }
            (Piece::Comment, _) => comments.push(text.to_owned()),
            (Piece::Code, _) if text.trim().is_empty() => continue,
            (Piece::Code | Piece::Literal, _) => {}
        }
        adjacent = piece == Piece::Comment;
    }
    comments
}

/// The banned phrases in a piece of prose, each with the file and the prose.
fn phrases(file: &str, text: &str) -> Option<String> {
    // Names in code style are those of other programs, or public.
    let prose: String = text.split('`').step_by(2).collect();
    let words = prose.to_lowercase();
    let words: Vec<&str> = words
        .split(|c: char| !c.is_alphanumeric() && !"'-".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let prose = format!(" {} ", words.join(" "));
    let phrase = PHRASES
        .iter()
        .find(|it| prose.contains(&format!(" {it} ")))?;
    Some(format!("{file}: \"{phrase}\" in: {}", text.trim()))
}

#[test]
fn words_are_read_from_identifiers() {
    assert_eq!(words("SessionTold"), ["session", "told"]);
    assert_eq!(words("tell_the_store"), ["tell", "the", "store"]);
    assert_eq!(words("JWKS_ANSWER"), ["jwks", "answer"]);
    assert_eq!(words("foretold"), ["foretold"]);
    assert!(phrases("a", "/// Nobody waits so\n/// long.").is_some());
    assert!(phrases("a", "/// It so happens: many.").is_none());
}
