//! The dependencies between modules: which module may use which, and where foreign APIs are named.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::source::{
    Piece, SourceFile, code, identifiers, pieces, rust_files, without_test_items,
};

/// Modules that every row of [`ALLOWED`] may use beside its own.
const COMMON: [&str; 11] = [
    "routing",
    "limits",
    "auth",
    "rejection",
    "settings",
    "telemetry",
    "tls",
    "clock",
    "hex_digits",
    "json",
    "memory_budget",
];

/// The modules that each module may use. `gateway` and `cli` may use every module.
const ALLOWED: [(&str, &[&str]); 12] = [
    (
        "proxy",
        &["api", "forward_auth", "pipeline", "sessions", "upstream"],
    ),
    ("forward_auth", &["pipeline"]),
    (
        "api",
        &[
            "pipeline", "identity", "sessions", "events", "upstream", "store",
        ],
    ),
    // Of `store`, limits only; of `identity`, providers only.
    (
        "pipeline",
        &[
            "identity", "sessions", "events", "upstream", "issuers", "store",
        ],
    ),
    (
        "identity",
        &[
            "sessions",
            "events",
            "issuers",
            "store",
            "database",
            "http_client",
        ],
    ),
    ("sessions", &["events", "store", "database"]),
    ("events", &["store", "http_client"]),
    ("upstream", &["http_client"]),
    ("issuers", &["http_client"]),
    ("store", &[]),
    ("database", &[]),
    ("config", &[]),
];

/// The modules below the table, each with all that it may use.
const FOUNDATION: [(&str, &[&str]); 12] = [
    ("routing", &["limits", "auth"]),
    ("rejection", &["limits", "auth"]),
    ("auth", &["hex_digits", "json"]),
    (
        "settings",
        &["routing", "limits", "auth", "rejection", "tls"],
    ),
    (
        "telemetry",
        &[
            "auth",
            "rejection",
            "settings",
            "clock",
            "hex_digits",
            "http_client",
        ],
    ),
    ("http_client", &["tls", "clock"]),
    ("limits", &["hex_digits"]),
    ("tls", &[]),
    ("clock", &[]),
    ("hex_digits", &[]),
    ("json", &[]),
    ("memory_budget", &[]),
];

/// Foreign APIs, with the modules that name them.
struct ForeignApi {
    crates: &'static [&'static str],
    modules: &'static [&'static str],
}

const FOREIGN_APIS: [ForeignApi; 8] = [
    ForeignApi {
        crates: &[
            "pingora",
            "pingora_core",
            "pingora_proxy",
            "pingora_timeout",
        ],
        modules: &[
            "proxy/pingora",
            "proxy/http1/dial.rs",
            "gateway",
            "upstream/balance.rs",
        ],
    },
    ForeignApi {
        // `redis::` in `store` itself is the module of that name.
        crates: &["redis"],
        modules: &["store"],
    },
    ForeignApi {
        crates: &["sqlx"],
        modules: &["database"],
    },
    ForeignApi {
        crates: &["axum"],
        modules: &["api", "forward_auth"],
    },
    ForeignApi {
        crates: &["prost"],
        modules: &["forward_auth/ext_authz_grpc"],
    },
    ForeignApi {
        crates: &["reqwest"],
        modules: &["http_client.rs"],
    },
    ForeignApi {
        crates: &["instant_acme"],
        modules: &["gateway/acme"],
    },
    ForeignApi {
        crates: &["prometheus"],
        modules: &["telemetry/metrics"],
    },
];

/// The source below `src/`, without the files and the items of tests. Paths are from there.
fn production() -> Vec<SourceFile> {
    let mut files = rust_files("src");
    let mut test_modules = Vec::new();
    for file in &mut files {
        file.path = file.path.trim_start_matches("src/").to_owned();
        let code = code(&file.text);
        let (production, tests) = without_test_items(&code);
        for item in tests {
            let mut words = identifiers(item).skip_while(|word| *word != "mod").skip(1);
            if let (Some(name), true) = (words.next(), item.ends_with(';')) {
                test_modules.push(module_path(&file.path) + name);
            }
        }
        file.text = production;
    }
    files.retain(|file| {
        let of_test = |module: &String| {
            let rest = file.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest.starts_with(['/', '.']))
        };
        !test_modules.iter().any(of_test)
    });
    files
}

/// The path of the module that a file holds, with a slash at its end.
fn module_path(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("mod");
    let path = if path == "lib" || path == "main" {
        ""
    } else {
        path
    };
    match path.is_empty() || path.ends_with('/') {
        true => path.to_owned(),
        false => format!("{path}/"),
    }
}

fn top_module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// The names that follow a path such as `crate::` in code, also in groups.
fn names_after<'c>(code: &'c str, path: &str) -> Vec<&'c str> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(path) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(members(group)),
            None => names.extend(identifiers(rest).next()),
        }
    }
    names
}

/// The first name of each member of a `use` group.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            members.extend(identifiers(&group[start..at]).next());
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    members
}

/// The modules that a file uses beside its own.
fn used_modules<'f>(file: &'f SourceFile, modules: &BTreeSet<String>) -> BTreeSet<&'f str> {
    let depth = module_path(&file.path).matches('/').count();
    let to_root = "super::".repeat(depth);
    let mut names = names_after(&file.text, "crate::");
    if depth > 0 {
        names.extend(names_after(&file.text, &to_root));
    }
    let own = top_module(&file.path);
    names.retain(|name| *name != own && modules.contains(*name));
    names.into_iter().collect()
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let files = production();
    let modules: BTreeSet<String> = files
        .iter()
        .map(|file| top_module(&file.path).to_owned())
        .collect();
    let rows = ALLOWED.iter().map(|(module, uses)| {
        let uses = uses.iter().chain(&COMMON).copied().collect();
        (*module, uses)
    });
    let foundation = FOUNDATION
        .iter()
        .map(|(module, uses)| (*module, uses.iter().copied().collect()));
    let allowed: BTreeMap<&str, BTreeSet<&str>> = rows.chain(foundation).collect();
    let mut strays = Vec::new();
    for file in &files {
        let module = top_module(&file.path);
        if matches!(module, "gateway" | "cli" | "lib" | "main") {
            continue;
        }
        let allowed = allowed.get(module);
        let allowed = allowed.unwrap_or_else(|| panic!("{module} has no row in the table"));
        for used in used_modules(file, &modules) {
            if !allowed.contains(used) {
                strays.push(format!("src/{} uses {used}", file.path));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn sessions_of_the_store_are_reached_through_sessions() {
    // Names that `Sessions` and `Accounts` do not have. `sessions_of` is missing: the admin API reads
    // activity, which only the store has.
    let operations = [
        "near_cache",
        "decide",
        "create_session",
        "abandon_session",
        "revoke_user",
        "all_sessions",
        "amend_session",
        "set_identity",
        "unended_sessions",
        "are_blacklisted",
        "cut_offs",
        "report_open_connections",
    ];
    for file in production() {
        if matches!(top_module(&file.path), "store" | "sessions" | "database") {
            continue;
        }
        for operation in operations {
            let call = format!(".{operation}(");
            assert!(
                !file.text.contains(&call),
                "src/{} calls `{operation}` of the store",
                file.path
            );
        }
    }
}

#[test]
fn foreign_apis_have_one_door() {
    let files = production();
    for api in &FOREIGN_APIS {
        let within = |path: &str, modules: &[&str]| {
            let mut modules = modules.iter();
            modules.any(|module| path.strip_prefix(module).is_some_and(is_boundary))
        };
        let mut strays = Vec::new();
        for file in files.iter().filter(|file| !within(&file.path, api.modules)) {
            let named = api.crates.iter().any(|name| names_crate(&file.text, name));
            if named {
                strays.push(&file.path);
            }
        }
        assert!(strays.is_empty(), "{:?} in {strays:?}", api.crates);
    }
}

fn is_boundary(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['/', '.'])
}

/// Whether code names a crate by a path that begins with it.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let last = before.chars().next_back();
        let is_word = last.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        is_word && !before.ends_with("::") && code[at + name.len()..].starts_with("::")
    })
}

#[test]
fn pure_modules_have_no_io_and_no_clock() {
    let foreign = ["tokio", "redis", "sqlx", "pingora", "axum", "reqwest"];
    let system = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "clock::",
        "async ",
    ];
    for file in production() {
        let pure = [
            "routing",
            "auth",
            "hex_digits",
            "json",
            "limits",
            "rejection",
        ];
        if !pure.contains(&top_module(&file.path)) {
            continue;
        }
        for name in foreign {
            assert!(!names_crate(&file.text, name), "src/{}: {name}", file.path);
        }
        for name in system {
            assert!(!file.text.contains(name), "src/{}: {name}", file.path);
        }
    }
}

#[test]
fn script_files_are_included_only_by_the_store() {
    for file in rust_files("src") {
        let scripts = pieces(&file.text)
            .iter()
            .any(|(piece, text)| *piece == Piece::Literal && text.ends_with(".lua\""));
        let of_store = file.path.starts_with("src/store/");
        assert!(!scripts || of_store, "{} names a script", file.path);
    }
}

#[test]
fn source_files_stay_short() {
    let long: Vec<_> = rust_files("src")
        .into_iter()
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "split by noun: {long:?}");
}
