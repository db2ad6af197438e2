#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::config::document::to_json;
use crate::config::schema::schema;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads `main.yaml` with this text. Errors are without the path of the folder.
    fn read(&self, text: &str) -> Result<Value, Vec<String>> {
        let schema = schema();
        let mut reader = DocumentReader::new(&schema, &|_| None);
        let outcome = reader.read(text, &self.path("main.yaml"));
        let show = |error: &Diagnostic| {
            let Position { file, line, column } = error.position;
            let file = reader.files.get(file).unwrap().display();
            let text = format!("{file}:{line}:{column}: {}", error.message);
            text.replace(&format!("{}/", self.0.path().display()), "")
        };
        match outcome {
            Ok(document) if document.errors.is_empty() => Ok(to_json(&document.root).0),
            Ok(document) => Err(document.errors.iter().map(show).collect()),
            Err(errors) => Err(errors.iter().map(show).collect()),
        }
    }

    fn fails(&self, text: &str, expected: &[&str]) {
        assert_eq!(self.read(text).unwrap_err(), expected, "{text}");
    }
}

fn yaml(text: &str) -> Value {
    to_json(&yaml::read(text, 0).unwrap().0.unwrap()).0
}

#[test]
fn sections_are_merged_and_lists_are_concatenated() {
    let folder = Folder::new(&[
        (
            "b.yaml",
            "store: { timeout: 1s }\nroutes: [b]\nlimits: { b: 1 }",
        ),
        (
            "d/2.yaml",
            "routes: [d2]\nidentity: { providers: { two: {} } }",
        ),
        (
            "d/10.yaml",
            "routes: [d10]\nidentity: { providers: { ten: {} } }",
        ),
        ("d/.hidden.yaml", "routes: [hidden]"),
        ("d/note.yml", "routes: [note]"),
        ("d/empty.yaml", ""),
        ("d/null.yaml", "~"),
    ]);
    let merged = folder.read(
        "include: [b.yaml, d]\nroutes: [a]\nstore: { url: memory, on_outage: { limits: deny } }",
    );
    let expected = "
        routes: [a, b, d10, d2]
        store: { url: memory, on_outage: { limits: deny }, timeout: 1s }
        limits: { b: 1 }
        identity: { providers: { two: {}, ten: {} } }";
    assert_eq!(merged.unwrap(), yaml(expected));
}

#[test]
fn included_files_include_relative_to_themselves() {
    let folder = Folder::new(&[
        ("a/one.yaml", "include: ../b/two.yaml\nroutes: [one]"),
        ("b/two.yaml", "include: three.yaml\nroutes: [two]"),
        ("b/three.yaml", "routes: [three]"),
    ]);
    let merged = folder.read("include: a/one.yaml").unwrap();
    assert_eq!(merged, yaml("routes: [one, two, three]"));
}

#[test]
fn absence_of_includes_is_valid() {
    let folder = Folder::new(&[]);
    fs::create_dir(folder.path("empty")).unwrap();
    for include in ["[]", "~", "empty"] {
        let merged = folder.read(&format!("include: {include}\na: 1")).unwrap();
        assert_eq!(merged, yaml("a: 1"), "{include}");
    }
}

#[test]
fn names_and_values_are_defined_once() {
    let folder = Folder::new(&[
        (
            "limits.yaml",
            "limits:\n  a: { limit: 1 }\n  b: { limit: 1 }",
        ),
        ("store.yaml", "store:\n  url: memory"),
        ("null.yaml", "api: ~"),
        ("kinds.yaml", "routes: {}"),
    ]);
    for (text, expected) in [
        (
            "limits: { a: { window: 1m } }\ninclude: limits.yaml",
            "limits.yaml:2:3: \"a\" is specified twice, first at main.yaml:1:11",
        ),
        (
            "include: store.yaml\nstore: { url: memory }",
            "store.yaml:2:3: \"url\" is specified twice, first at main.yaml:2:10",
        ),
        (
            "include: null.yaml\napi: {}",
            "null.yaml:1:1: \"api\" is specified twice, first at main.yaml:2:1",
        ),
        (
            "include: kinds.yaml\nroutes: []",
            "kinds.yaml:1:1: \"routes\" is specified twice, first at main.yaml:2:1",
        ),
    ] {
        folder.fails(text, &[expected]);
    }
}

#[test]
fn cycles_and_repetitions_are_rejected() {
    let folder = Folder::new(&[
        ("self.yaml", "include: ./self.yaml"),
        ("a.yaml", "include: d/b.yaml"),
        ("d/b.yaml", "include: ../a.yaml"),
        ("back.yaml", "include: main.yaml"),
        ("main.yaml", ""),
        ("once.yaml", "routes: []"),
    ]);
    symlink("once.yaml", folder.path("link.yaml")).unwrap();
    let itself = "self.yaml:1:10: ./self.yaml includes itself";
    folder.fails("include: self.yaml", &[itself]);
    let cycle = "d/b.yaml:1:10: d/../a.yaml includes itself";
    folder.fails("include: a.yaml", &[cycle]);
    let back = "back.yaml:1:10: main.yaml includes itself";
    folder.fails("include: back.yaml", &[back]);
    let twice = "main.yaml:1:22: link.yaml is included twice, first at 1:11";
    folder.fails("include: [once.yaml, link.yaml]", &[twice]);
}

#[test]
fn depth_number_and_size_are_bounded() {
    let folder = Folder::new(&[("main.yaml", "")]);
    for level in 0..10 {
        let next = format!("include: {}.yaml", level + 1);
        folder.write(&format!("{level}.yaml"), &next);
    }
    folder.write("10.yaml", "");
    assert!(folder.read("include: 3.yaml").is_ok());
    let deep = "9.yaml:1:10: files are included more than 8 levels deep";
    folder.fails("include: 2.yaml", &[deep]);

    let folder = Folder::new(&[]);
    for name in 0..1001 {
        folder.write(&format!("many/{name}.yaml"), "");
    }
    let many = "main.yaml:1:10: cannot read the folder many: it has more than 1000 files";
    folder.fails("include: many", &[many]);
    fs::remove_file(folder.path("many/1000.yaml")).unwrap();
    let many = "main.yaml:1:10: more than 1000 files are included";
    folder.fails("include: many", &[many]);

    let half = format!("# {}", "x".repeat(9 << 20));
    let folder = Folder::new(&[("1.yaml", &half), ("2.yaml", &half)]);
    let large = "main.yaml:1:19: the files of the configuration are together larger than 16 MiB";
    folder.fails("include: [1.yaml, 2.yaml]", &[large]);
    folder.write("3.yaml", &"x".repeat((16 << 20) + 1));
    let large = "main.yaml:1:10: cannot read 3.yaml: it is larger than 16 MiB";
    folder.fails("include: 3.yaml", &[large]);

    let list = format!("routes: [{}]", "x,".repeat(300_000));
    let folder = Folder::new(&[("1.yaml", &list), ("2.yaml", &list)]);
    let large = "main.yaml:1:19: the files of the configuration have too many entries";
    folder.fails("include: [1.yaml, 2.yaml]", &[large]);
}

#[test]
fn unreadable_files_are_reported_together() {
    let folder = Folder::new(&[("secret/a.yaml", ""), ("syntax.yaml", "\n[")]);
    let fifo = folder.path("pipe");
    make_pipe(&fifo);
    let mode = |mode| fs::set_permissions(folder.path("secret"), PermissionsExt::from_mode(mode));
    let mut expected = vec![
        "main.yaml:1:11: cannot read none.yaml: no such file",
        "main.yaml:1:22: cannot read pipe: it is not a regular file",
    ];
    mode(0o000).unwrap();
    // Permissions do not apply to the superuser.
    if fs::read_dir(folder.path("secret")).is_err() {
        expected.push("main.yaml:1:28: cannot read the folder secret: permission denied");
    }
    let errors = folder.read("include: [none.yaml, pipe, secret, syntax.yaml]\na: 1\na: 2");
    mode(0o700).unwrap();
    let errors = errors.unwrap_err();
    let (found, syntax): (Vec<_>, Vec<_>) = errors
        .iter()
        .map(String::as_str)
        .partition(|error| !error.starts_with("syntax.yaml:"));
    expected.insert(0, "main.yaml:3:1: \"a\" is specified twice, first at 2:1");
    assert_eq!(found, expected);
    assert!(
        syntax.first().unwrap().contains("invalid YAML"),
        "{syntax:?}"
    );
}

fn make_pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}
