//! Programs that npm has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;

static INSTALLING: Mutex<()> = Mutex::new(());

/// Oldest Node.js that the packages run on; Debian 12 has 18.
const MIN_NODE: u32 = 20;

/// Installs the packages of a folder with a lockfile, once, and returns the folder. `None`, with a
/// message: this machine has no npm, an older Node.js, or no access to the registry.
pub fn install(folder: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let _one = INSTALLING.lock();
    if node_version().is_some_and(|version| version < MIN_NODE) {
        eprintln!("skipped: Node.js is older than {MIN_NODE}");
        return None;
    }
    if folder.join("node_modules/.package-lock.json").exists() {
        return Some(folder);
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--silent"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .status();
    match installed {
        Ok(status) if status.success() => Some(folder),
        Ok(_) => {
            eprintln!("skipped: npm cannot install {}", folder.display());
            None
        }
        Err(_) => {
            eprintln!("skipped: there is no npm (scripts/setup tests installs it)");
            None
        }
    }
}

fn node_version() -> Option<u32> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix('v')?.split('.').next()?.parse().ok()
}
