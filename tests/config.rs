//! `portcullis check` and its kin, over the shipped files and over files with known mistakes.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "config/connect.rs"]
mod connect;
#[path = "config/effective.rs"]
mod effective;
#[path = "config/explain.rs"]
mod explain;
#[path = "config/init.rs"]
mod init;
#[path = "config/sources.rs"]
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn portcullis(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .args(args)
        .env_remove("JWT_SECRET")
        .env_remove("PORTCULLIS_CONFIG")
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|is| is == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no files");
    files
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn shipped_files_are_valid() {
    for file in yaml_files("config") {
        let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), format!("{}: valid\n", file.display()));
        assert_eq!(stderr(&output), "");
    }
}

const BASE: &str = "\
listeners: [{ bind: 127.0.0.1:8080 }]
upstreams: { app: { servers: [http://127.0.0.1:3000] } }
routes: [{ name: app, upstream: app }]
";
const SIGNING: &str = "  signing: { algorithm: HS256, secret: 0123456789abcdef0123456789abcdef }\n";

/// The examples in comments at the end of the file.
#[test]
fn examples_of_the_full_file_are_valid() {
    let text = fs::read_to_string(root().join("config/portcullis.full.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blocks: Vec<&str> = text
        .split("\n\n")
        .filter(|block| block.contains("with its defaults"))
        .collect();
    assert_eq!(blocks.len(), 4);
    for (index, block) in blocks.into_iter().enumerate() {
        let lines = block.lines().skip_while(|line| *line != "#").skip(1);
        let example: Vec<&str> = lines
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .collect();
        let example = match example.first() {
            Some(&"trusted_issuers:" | &"introspection:") => {
                let indented: Vec<String> =
                    example.iter().map(|line| format!("  {line}\n")).collect();
                format!("{BASE}tokens:\n{SIGNING}{}", indented.concat())
            }
            _ => format!("{BASE}tokens:\n{SIGNING}{}\n", example.join("\n")),
        };
        let file = folder.path().join(format!("{index}.yaml"));
        fs::write(&file, &example).unwrap();
        let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}{example}", stderr(&output));
    }
}

/// Each block of YAML in the page is a part of a file, with sections of its own.
#[test]
fn samples_of_the_introspection_page_are_valid() {
    let page = fs::read_to_string(root().join("docs/introspection.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for (index, block) in blocks.into_iter().enumerate() {
        let sample = block.split("```").next().unwrap().trim_end();
        let indent = sample.len() - sample.trim_start().len();
        let lines = sample.lines().map(|line| line.get(indent..).unwrap_or(""));
        let sample = lines.collect::<Vec<_>>().join("\n");
        let sample = match sample.contains("tokens:\n") {
            true => sample.replace("tokens:\n", &format!("tokens:\n{SIGNING}")),
            false => format!("tokens:\n{SIGNING}{sample}"),
        };
        let is_missing = |line: &&str| {
            let section = line
                .split_once(':')
                .map(|(section, _)| format!("{section}:"));
            !section.is_some_and(|section| sample.lines().any(|line| line.starts_with(&section)))
        };
        let base: String = BASE
            .lines()
            .filter(is_missing)
            .map(|line| format!("{line}\n"))
            .collect();
        let file = folder.path().join(format!("{index}.yaml"));
        fs::write(&file, format!("{base}{sample}\n")).unwrap();
        let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}{sample}", stderr(&output));
    }
}

/// Each block of YAML in the page is a part of a file.
#[test]
fn samples_of_the_provider_page_are_valid() {
    let page = fs::read_to_string(root().join("docs/sign-in-providers.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("client.pem");
    let generated = portcullis(&[
        "keys",
        "generate",
        "--algorithm",
        "ES256",
        "--out",
        key.to_str().unwrap(),
    ]);
    assert!(generated.status.success(), "{}", stderr(&generated));
    check_samples(&page, 15, folder.path());
}

#[test]
fn samples_of_the_page_about_api_keys_are_valid() {
    let page = fs::read_to_string(root().join("docs/api-keys.md")).unwrap();
    check_samples(&page, 3, tempfile::tempdir().unwrap().path());
}

/// Checks each block of YAML in a page, which is a part of a file.
fn check_samples(page: &str, at_least: usize, folder: &Path) {
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).collect();
    assert!(blocks.len() >= at_least, "{}", blocks.len());
    for (index, block) in blocks.into_iter().enumerate() {
        let sample = block.split("```").next().unwrap().trim_end();
        let indent = sample.len() - sample.trim_start().len();
        let lines = sample.lines().map(|line| line.get(indent..).unwrap_or(""));
        let sample = lines.collect::<Vec<_>>().join("\n");
        let base: String = BASE
            .lines()
            .filter(|line| !(line.starts_with("routes:") && sample.contains("routes:")))
            .map(|line| format!("{line}\n"))
            .collect();
        let file = folder.join(format!("{index}.yaml"));
        fs::write(&file, format!("{base}tokens:\n{SIGNING}{sample}\n")).unwrap();
        let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}{sample}", stderr(&output));
    }
}

/// Each block of YAML in the page is a part of a file.
#[test]
fn samples_of_the_tls_page_are_valid() {
    let page = fs::read_to_string(root().join("docs/tls.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["example.com", "example.org"] {
        for kind in ["pem", "key"] {
            let site = root().join(format!("tests/config/files/site.{kind}"));
            fs::copy(site, folder.path().join(format!("{name}.{kind}"))).unwrap();
        }
    }
    let key = folder.path().join("encryption.key");
    fs::write(key, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for (index, block) in blocks.into_iter().enumerate() {
        let sample = block.split("```").next().unwrap();
        let base: String = BASE
            .lines()
            .filter(|line| !(line.starts_with("listeners:") && sample.contains("listeners:")))
            .map(|line| format!("{line}\n"))
            .collect();
        let file = folder.path().join(format!("{index}.yaml"));
        fs::write(&file, format!("{base}tokens:\n{SIGNING}{sample}")).unwrap();
        let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}{sample}", stderr(&output));
    }
}

/// Each file says in its first lines what is probably not meant: `# warn LINE:COLUMN: message`.
#[test]
fn suspicious_settings_produce_warnings() {
    for file in yaml_files("tests/config/warnings") {
        let text = fs::read_to_string(&file).unwrap();
        let shown = file.to_str().unwrap();
        let expected: Vec<String> = text
            .lines()
            .map_while(|line| line.strip_prefix("# warn "))
            .map(|line| match line.split_once(": ") {
                Some((at, message)) => format!("{shown}:{at}: warning: {message}"),
                None => panic!("{line}"),
            })
            .collect();
        let output = portcullis(&["check", "--config", shown]);
        let found = stderr(&output);
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{shown}");
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert_eq!(stdout(&output), format!("{shown}: valid\n"));
    }
}

/// Each file says in its first lines what is wrong with it: `# expect LINE:COLUMN: message`, or
/// `# expect FILE:LINE:COLUMN: message` for an included file.
#[test]
fn every_mistake_is_reported_with_its_position() {
    for file in yaml_files("tests/config") {
        let text = fs::read_to_string(&file).unwrap();
        let shown = file.to_str().unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let expected: Vec<String> = text
            .lines()
            .map_while(|line| line.strip_prefix("# expect "))
            .map(
                |line| match line.starts_with(|c: char| c.is_ascii_digit()) {
                    true => format!("{name}:{line}"),
                    false => line.to_owned(),
                },
            )
            .collect();
        assert!(!expected.is_empty(), "{shown} expects nothing");
        let output = portcullis(&["check", "--config", shown]);
        // A message may name a file beside the configuration.
        let folder = format!("{}/", file.parent().unwrap().display());
        let found = stderr(&output).replace(&folder, "");
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{shown}");
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert_eq!(stdout(&output), "", "{shown}");
        assert!(
            !stderr(&output).contains("hunter2"),
            "{shown} gives a secret away"
        );
    }
}

#[test]
fn schema_is_valid_and_accepts_the_shipped_files() {
    let output = portcullis(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    assert_eq!(schema.get("additionalProperties"), Some(&false.into()));
}

#[test]
fn reference_page_is_up_to_date() {
    let made = stdout(&portcullis(&["schema", "--format", "markdown"]));
    let committed = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    assert!(
        made == committed,
        "run `portcullis schema --format markdown > docs/configuration.md`"
    );
}

#[test]
fn variables_come_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let text = fs::read_to_string(root().join("config/portcullis.yaml")).unwrap();
    fs::write(&file, text.replace("${JWT_SECRET:-", "${JWT_SECRET}#${X:-")).unwrap();
    let run = |command: &str, secret: Option<&str>| {
        let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        process
            .args([command, "--config"])
            .arg(&file)
            .env_remove("JWT_SECRET");
        secret.map(|secret| process.env("JWT_SECRET", secret));
        process.output().unwrap()
    };
    // All digits, and still text.
    let digits = run("check", Some("01234567890123456789012345678901"));
    assert!(digits.status.success(), "{}", stderr(&digits));
    let line = text
        .lines()
        .position(|line| line.contains("${JWT_SECRET:-"));
    let expected = format!(
        "{}:{}:13: the environment variable JWT_SECRET is not set, and \"${{JWT_SECRET}}\" has no default\n",
        file.display(),
        line.unwrap() + 1
    );
    let unset = run("run", None);
    assert_eq!(unset.status.code(), Some(1));
    assert_eq!(stderr(&unset), expected);
}

#[test]
fn wrong_usage_has_its_own_exit_status() {
    assert_eq!(portcullis(&["check"]).status.code(), Some(2));
    assert_eq!(portcullis(&["chekc"]).status.code(), Some(2));
    assert_eq!(
        portcullis(&["check", "--config", "/nonexistent"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(portcullis(&["--help"]).status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn generated_keys_are_private_and_never_overwrite() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signing.pem");
    let path = file.to_str().unwrap();
    assert!(
        portcullis(&["keys", "generate", "--out", path])
            .status
            .success()
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = fs::read(&file).unwrap();
    assert_eq!(
        portcullis(&["keys", "generate", "--out", path])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn unusable_token_is_explained() {
    use std::io::Write;
    let file = root().join("config/portcullis.yaml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["token", "inspect", "-", "--config"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // {"alg":"none"} and {"sub":"ada"}.
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(token.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success());
    assert!(
        text.contains("\"sub\": \"ada\"") && text.contains("verdict refused: "),
        "{text}"
    );
}
