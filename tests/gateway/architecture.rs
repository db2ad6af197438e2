//! The arrows between the rooms, kept true: who may name what.

use std::path::{Path, PathBuf};

/// Every source file below `src/`, with its path from there.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let named = |path: &PathBuf| {
        path.strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    files
        .iter()
        .map(|path| (named(path), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The lines of code: comments and what follows `#[cfg(test)]` left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    production
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
}

/// Whether a line names a path root: a crate, or one of our rooms.
fn names_crate(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let free = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        free && line[at + root.len()..].starts_with("::")
    })
}

#[track_caller]
fn assert_named_only_in(allowed: &[&str], roots: &[&str]) {
    let mut strays = Vec::new();
    for (file, text) in sources() {
        if allowed.iter().any(|room| file.starts_with(room)) {
            continue;
        }
        for line in code(&text) {
            if roots.iter().any(|root| names_crate(line, root)) {
                strays.push(format!("src/{file}: {}", line.trim()));
            }
        }
    }
    assert!(
        strays.is_empty(),
        "only {allowed:?} may name {roots:?}:\n{}",
        strays.join("\n")
    );
}

#[test]
fn pingora_is_named_only_in_allowed_modules() {
    assert_named_only_in(
        &[
            "proxy/pingora",
            "proxy/api_bridge.rs",
            "proxy/local_response",
            "proxy/sign_in.rs",
            "proxy/unrouted.rs",
            "gateway",
            "upstream",
        ],
        &[
            "pingora",
            "pingora_core",
            "pingora_proxy",
            "pingora_timeout",
        ],
    );
}

#[test]
fn redis_client_is_named_only_in_the_store() {
    assert_named_only_in(&["store"], &["redis"]);
}

#[test]
fn sql_client_is_named_only_in_the_database() {
    assert_named_only_in(&["directory"], &["sqlx"]);
}

#[test]
fn config_is_used_only_by_cli_and_gateway() {
    assert_named_only_in(
        &["config", "gateway", "cli", "main.rs"],
        &["crate::config", "config"],
    );
}

#[test]
fn pure_modules_have_no_io_and_no_clock() {
    let domain = ["routing", "auth", "json", "limits", "rejection"];
    let foreign = [
        "tokio",
        "redis",
        "sqlx",
        "pingora",
        "axum",
        "reqwest",
        "std::fs",
        "std::net::TcpStream",
    ];
    let clocks = ["SystemTime::now", "Instant::now"];
    for (file, text) in sources() {
        let room = file.split(['/', '.']).next().unwrap_or_default();
        // Tests beside the code may read what they test with.
        let tests = file.ends_with("tests.rs") || file.contains("/tests/");
        if !domain.contains(&room) || tests {
            continue;
        }
        for line in code(&text) {
            let stray = foreign.iter().any(|root| names_crate(line, root));
            let clock = clocks.iter().any(|clock| line.contains(clock));
            assert!(!stray && !clock, "src/{file}: {line}");
        }
    }
}

#[test]
fn script_files_are_included_only_by_the_store() {
    for (file, text) in sources() {
        let scripts =
            code(&text).any(|line| line.contains("include_str!") && line.contains(".lua"));
        assert!(
            !scripts || file.starts_with("store"),
            "src/{file} names a script"
        );
    }
}

#[test]
fn source_files_stay_short() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(file, text)| (text.lines().count(), file))
        .filter(|(lines, _)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "split by noun: {long:?}");
}
