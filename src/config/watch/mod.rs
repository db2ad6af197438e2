//! Watches the configuration file and the files that it refers to for changes.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Changes within this time of each other count as one.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Interval of comparisons without notifications, which not every file system sends.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The operating system does not provide file notifications.
#[derive(Debug, thiserror::Error)]
#[error("file notifications of the operating system are not available")]
pub struct WatchError(#[from] notify::Error);

/// Watches files through their directories.
///
/// This detects a file that is written in place, replaced by a rename, or reached through a swapped
/// symbolic link, as in volumes of Kubernetes.
pub struct FileWatcher {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    watcher: RecommendedWatcher,
    notifications: mpsc::Receiver<()>,
    fingerprint: u64,
    /// Whether the files must be compared because they changed since they were read.
    needs_compare: bool,
}

impl FileWatcher {
    /// Starts watching. `fingerprint` is that of the contents that were read, so that a change
    /// since then is detected.
    ///
    /// # Errors
    ///
    /// The operating system has no watches left.
    pub fn new(
        files: impl IntoIterator<Item = PathBuf>,
        fingerprint: u64,
    ) -> Result<FileWatcher, WatchError> {
        // One pending notification suffices to trigger a comparison.
        let (sender, notifications) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A comparison opens the files; reacting to that would never end.
            if !event.is_ok_and(|event| is_read_only(event.kind)) {
                let _ = sender.try_send(());
            }
        })?;
        let mut watch = FileWatcher {
            files: BTreeSet::new(),
            folders: BTreeSet::new(),
            watcher,
            notifications,
            fingerprint,
            needs_compare: true,
        };
        watch.replace(files, fingerprint);
        Ok(watch)
    }

    /// Replaces the watched files; `fingerprint` is as in [`FileWatcher::new`].
    pub fn replace(&mut self, files: impl IntoIterator<Item = PathBuf>, fingerprint: u64) {
        self.files = files.into_iter().collect();
        self.watch_folders();
        self.fingerprint = fingerprint;
        self.needs_compare = true;
    }

    /// Waits until the content of a file has changed and no more changes have come for 200 ms.
    ///
    /// Cancel safe: the next call reports the change, within five seconds.
    pub async fn changed(&mut self) {
        loop {
            // No notification reports a change from before the files were watched.
            if !std::mem::take(&mut self.needs_compare) {
                tokio::select! {
                    Some(()) = self.notifications.recv() => self.debounce().await,
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                }
            }
            let current = fingerprint(&self.files);
            if current != self.fingerprint {
                self.fingerprint = current;
                self.watch_folders();
                return;
            }
        }
    }

    async fn debounce(&mut self) {
        // A file that changes constantly is compared after a second.
        let deadline = Instant::now() + 5 * DEBOUNCE;
        loop {
            let quiet_until = (Instant::now() + DEBOUNCE).min(deadline);
            tokio::select! {
                Some(()) = self.notifications.recv() => {}
                () = sleep_until(quiet_until) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Watches every directory on the path to a file. One that cannot be watched, for example
    /// because it does not exist yet, is left to the regular comparison.
    fn watch_folders(&mut self) {
        let required: BTreeSet<PathBuf> = self
            .files
            .iter()
            .flat_map(|file| containing_folders(file))
            .collect();
        for obsolete in self.folders.difference(&required) {
            let _ = self.watcher.unwatch(obsolete);
        }
        let mut watched = BTreeSet::new();
        for folder in required {
            if self.folders.contains(&folder) && folder.exists()
                || self
                    .watcher
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .is_ok()
            {
                watched.insert(folder);
            }
        }
        self.folders = watched;
    }
}

fn is_read_only(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Returns the directory of the file and those of the symbolic links on the way to it.
fn containing_folders(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut path = file.to_owned();
    // The number of links that Linux follows.
    for _ in 0..40 {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // The directory may itself be a swapped link, such as `..data`.
        if folder.is_symlink()
            && let Some(parent) = folder.parent()
        {
            folders.push(parent.to_owned());
        }
        let target = fs::read_link(&path);
        folders.push(folder.clone());
        match target {
            Ok(target) => path = folder.join(target),
            Err(_) => break,
        }
    }
    folders
}

/// Hashes the content of a file as it was read, together with the current contents of others.
pub(super) fn fingerprint_as_read(file: &Path, content: &[u8], others: &[PathBuf]) -> u64 {
    let files: BTreeSet<&Path> = others.iter().map(PathBuf::as_path).chain([file]).collect();
    hash_contents(files.into_iter().map(|path| match path == file {
        true => Ok(content.to_vec()),
        false => fs::read(path),
    }))
}

fn fingerprint(files: &BTreeSet<PathBuf>) -> u64 {
    hash_contents(files.iter().map(fs::read))
}

fn hash_contents(contents: impl Iterator<Item = std::io::Result<Vec<u8>>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for content in contents {
        match content {
            Ok(content) => {
                hasher.write_u8(1);
                hasher.write_usize(content.len());
                hasher.write(&content);
            }
            Err(_) => hasher.write_u8(0),
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
