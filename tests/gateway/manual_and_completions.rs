//! Manual pages and shell completions, which packages install.

use std::process::{Command, Stdio};

use crate::support::gateway::run;

#[test]
fn completions_are_valid_scripts_that_know_every_command() {
    for (shell, check) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let (status, script, error) = run(&["completions", shell]);
        assert_eq!(status, 0, "{shell}: {error}");
        for word in ["explain", "set-password", "log-level"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("completions");
        std::fs::write(&file, script).unwrap();
        let syntax = Command::new(check)
            .arg("-n")
            .arg(&file)
            .stdin(Stdio::null())
            .output();
        match syntax {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(_) => eprintln!("skipped: {shell} is not installed"),
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).0, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (status, out, error) = run(&["manual", path]);
    assert_eq!((status, out.as_str()), (0, ""), "{error}");
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for (name, text) in [
        ("portcullis.1", "portcullis\\-users(1)"),
        ("portcullis-run.1", "\\-\\-config"),
        ("portcullis-users-add.1", "\\-\\-email"),
    ] {
        assert!(page(name).contains(text), "{name}: {}", page(name));
    }
    assert!(!folder.path().join("portcullis-manual.1").exists());
    let (status, _, error) = run(&["manual", "/does/not/exist"]);
    assert_eq!(status, 1);
    assert!(error.contains("/does/not/exist"), "{error}");
}
