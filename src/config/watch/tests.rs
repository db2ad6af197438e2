#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

/// Far below [`POLL_INTERVAL`], so that only a notification can be in time.
const NOTIFICATION_DEADLINE: Duration = Duration::from_secs(3);

async fn detects_change(watch: &mut FileWatcher) -> bool {
    timeout(NOTIFICATION_DEADLINE, watch.changed())
        .await
        .is_ok()
}

fn watch_file(file: PathBuf) -> FileWatcher {
    let current = fingerprint(&BTreeSet::from([file.clone()]));
    FileWatcher::new([file], current).unwrap()
}

#[tokio::test]
async fn change_before_watching_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let read = fingerprint_as_read(&file, b"1", &[]);
    fs::write(&file, "2").unwrap();
    let mut watch = FileWatcher::new([file.clone()], read).unwrap();
    assert!(detects_change(&mut watch).await, "at the beginning");
    fs::write(&file, "4").unwrap();
    watch.replace([file.clone()], fingerprint_as_read(&file, b"3", &[]));
    assert!(detects_change(&mut watch).await, "while it was read again");
}

#[tokio::test]
async fn written_renamed_and_recreated_files_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = watch_file(file.clone());

    fs::write(&file, "2").unwrap();
    assert!(detects_change(&mut watch).await, "written in place");

    fs::write(folder.path().join("new"), "3").unwrap();
    fs::rename(folder.path().join("new"), &file).unwrap();
    assert!(detects_change(&mut watch).await, "renamed over");

    fs::remove_file(&file).unwrap();
    assert!(detects_change(&mut watch).await, "removed");
    fs::write(&file, "4").unwrap();
    assert!(detects_change(&mut watch).await, "created again");
}

#[tokio::test]
async fn swapped_symlinks_are_detected_repeatedly() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, content) in [("..1", "one"), ("..2", "two"), ("..3", "three")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), content).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let mut watch = watch_file(at("a.yaml"));
    for version in ["..2", "..3", "..1"] {
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(detects_change(&mut watch).await, "{version}");
    }
}

#[tokio::test]
async fn comparing_files_triggers_no_notification() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = watch_file(file.clone());
    while timeout(DEBOUNCE, watch.notifications.recv()).await.is_ok() {}
    fingerprint(&watch.files);
    assert!(
        timeout(2 * DEBOUNCE, watch.notifications.recv())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn unchanged_content_is_not_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = watch_file(file.clone());
    fs::write(&file, "1").unwrap();
    fs::write(folder.path().join("other"), "x").unwrap();
    assert!(
        timeout(Duration::from_secs(1), watch.changed())
            .await
            .is_err()
    );
}
