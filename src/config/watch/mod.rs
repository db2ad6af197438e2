//! Watches the files of a configuration and the files that it refers to for changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::files::FilesRead;

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
/// symbolic link, as in volumes of Kubernetes, and a file that is added to an included folder.
pub struct FileWatcher {
    /// The files of the configuration in force.
    in_force: BTreeSet<PathBuf>,
    /// The watched files as they were last read or compared.
    files: FilesRead,
    folders: BTreeSet<PathBuf>,
    watcher: RecommendedWatcher,
    notifications: mpsc::Receiver<()>,
    /// Whether the files must be compared because they changed since they were read.
    needs_compare: bool,
}

impl FileWatcher {
    /// Starts watching. A change since the files were read is detected.
    ///
    /// # Errors
    ///
    /// The operating system has no watches left.
    pub fn new(files: FilesRead) -> Result<FileWatcher, WatchError> {
        // One pending notification suffices to trigger a comparison.
        let (sender, notifications) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A comparison opens the files; reacting to that would never end.
            if !event.is_ok_and(|event| is_read_only(event.kind)) {
                let _ = sender.try_send(());
            }
        })?;
        let mut watch = FileWatcher {
            in_force: BTreeSet::new(),
            files: FilesRead::default(),
            folders: BTreeSet::new(),
            watcher,
            notifications,
            needs_compare: true,
        };
        watch.follow(files);
        Ok(watch)
    }

    /// Watches the files of a configuration that is now in force.
    pub fn follow(&mut self, files: FilesRead) {
        self.in_force = files.paths().cloned().collect();
        self.watch(files);
    }

    /// Watches the files of a configuration that was not accepted, beside those of the one in force,
    /// so that their correction is detected.
    pub fn follow_rejected(&mut self, mut files: FilesRead) {
        files.add(&self.in_force);
        self.watch(files);
    }

    fn watch(&mut self, files: FilesRead) {
        self.files = files;
        self.watch_folders();
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
            if self.files.refresh() {
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
            .paths()
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

/// Returns the directory of the file and those of the symbolic links on the way to it; for a
/// directory, itself too.
fn containing_folders(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if file.is_dir() {
        folders.push(file.to_owned());
    }
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

#[cfg(test)]
mod tests;
