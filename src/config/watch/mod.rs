//! Noticing that the configuration changed: the file itself, or a file that it refers to.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Changes that come closer together than this are one.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How often the files are compared although nothing was heard: not every file system tells.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's file notifications cannot be used")]
pub struct WatchError(#[from] notify::Error);

/// Watches files by their folders, so that it makes no difference whether a file is written in
/// place, replaced by a rename, or reached through a symbolic link that is swapped, as Kubernetes
/// does with mounted volumes.
pub struct FileWatcher {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    watcher: RecommendedWatcher,
    notifications: mpsc::Receiver<()>,
    fingerprint: u64,
    /// Whether the files have not been compared since they are watched.
    needs_compare: bool,
}

impl FileWatcher {
    /// Begins to watch. `fingerprint` is of what the files held when they were read: what has changed
    /// since is a change.
    ///
    /// # Errors
    ///
    /// When the operating system has no more watches to give.
    pub fn new(
        files: impl IntoIterator<Item = PathBuf>,
        fingerprint: u64,
    ) -> Result<FileWatcher, WatchError> {
        // One waiting notice is enough: it means "compare".
        let (notice, noticed) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Comparing opens the files itself; answering to that would never end.
            if !event.is_ok_and(|event| is_read_only(event.kind)) {
                let _ = notice.try_send(());
            }
        })?;
        let mut watch = FileWatcher {
            files: BTreeSet::new(),
            folders: BTreeSet::new(),
            watcher,
            notifications: noticed,
            fingerprint,
            needs_compare: true,
        };
        watch.replace(files, fingerprint);
        Ok(watch)
    }

    /// Watches these files from now on instead; `fingerprint` is as in [`Watch::new`].
    pub fn replace(&mut self, files: impl IntoIterator<Item = PathBuf>, fingerprint: u64) {
        self.files = files.into_iter().collect();
        self.watch_folders();
        self.fingerprint = fingerprint;
        self.needs_compare = true;
    }

    /// Waits until the content of a file has changed and no more changes came for 200 ms. Safe to
    /// cancel: the next call tells of the change, within five seconds.
    pub async fn changed(&mut self) {
        loop {
            // A change from before they were watched is not told of.
            if !std::mem::take(&mut self.needs_compare) {
                tokio::select! {
                    Some(()) = self.notifications.recv() => self.debounce().await,
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                }
            }
            let found = fingerprint(&self.files);
            if found != self.fingerprint {
                self.fingerprint = found;
                self.watch_folders();
                return;
            }
        }
    }

    async fn debounce(&mut self) {
        // A file that never rests is compared after a second all the same.
        let latest = Instant::now() + 5 * DEBOUNCE;
        loop {
            let quiet = (Instant::now() + DEBOUNCE).min(latest);
            tokio::select! {
                Some(()) = self.notifications.recv() => {}
                () = sleep_until(quiet) => return,
            }
            if Instant::now() >= latest {
                return;
            }
        }
    }

    /// Watches every folder through which a file is reached. A folder that cannot be watched (it is
    /// not there yet) is left to the regular comparison.
    fn watch_folders(&mut self) {
        let wanted: BTreeSet<PathBuf> = self
            .files
            .iter()
            .flat_map(|file| containing_folders(file))
            .collect();
        for gone in self.folders.difference(&wanted) {
            let _ = self.watcher.unwatch(gone);
        }
        let mut watched = BTreeSet::new();
        for folder in wanted {
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

/// The folder of the file, and those of the links on the way to it.
fn containing_folders(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut path = file.to_owned();
    // As many links as Linux follows.
    for _ in 0..40 {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // The folder may itself be a link that is swapped, such as `..data`.
        if folder.is_symlink()
            && let Some(above) = folder.parent()
        {
            folders.push(above.to_owned());
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

/// A hash over the contents of all files; a file that is not there counts too.
/// The fingerprint of a file that was read, with others beside it.
pub(super) fn fingerprint_as_read(file: &Path, content: &[u8], others: &[PathBuf]) -> u64 {
    let files: BTreeSet<&Path> = others.iter().map(PathBuf::as_path).chain([file]).collect();
    hash_contents(files.into_iter().map(|one| match one == file {
        true => Ok(content.to_vec()),
        false => fs::read(one),
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
