//! Programs that npm has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;

static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs the packages of a folder with a lockfile, once, and returns the folder. `None`, with a
/// message: this machine has no npm.
pub fn install(folder: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let _one = INSTALLING.lock();
    if folder.join("node_modules/.package-lock.json").exists() {
        return Some(folder);
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--silent"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .status();
    if installed.is_err() {
        eprintln!("skipped: there is no npm (scripts/setup tests installs it)");
        return None;
    }
    assert!(
        installed.unwrap().success(),
        "npm ci in {}",
        folder.display()
    );
    Some(folder)
}
