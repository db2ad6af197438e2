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

fn read_as(file: &Path, content: &[u8]) -> FilesRead {
    let mut files = FilesRead::default();
    files.record(file, Some(content));
    files
}

fn watch_file(file: &Path) -> FileWatcher {
    FileWatcher::new(read_as(file, &fs::read(file).unwrap())).unwrap()
}

#[tokio::test]
async fn change_before_watching_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let read = read_as(&file, b"1");
    fs::write(&file, "2").unwrap();
    let mut watch = FileWatcher::new(read).unwrap();
    assert!(detects_change(&mut watch).await, "at the beginning");
    fs::write(&file, "4").unwrap();
    watch.follow(read_as(&file, b"3"));
    assert!(detects_change(&mut watch).await, "while it was read again");
}

#[tokio::test]
async fn written_renamed_and_recreated_files_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watch = watch_file(&file);

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
    let mut watch = watch_file(&at("a.yaml"));
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
    let mut watch = watch_file(&file);
    while timeout(DEBOUNCE, watch.notifications.recv()).await.is_ok() {}
    assert!(!watch.files.refresh());
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
    let mut watch = watch_file(&file);
    fs::write(&file, "1").unwrap();
    fs::write(folder.path().join("other"), "x").unwrap();
    assert!(
        timeout(Duration::from_secs(1), watch.changed())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn files_of_a_folder_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let included = folder.path().join("conf.d");
    fs::create_dir(&included).unwrap();
    let mut files = FilesRead::default();
    files.record_folder(&included, &[]);
    let mut watch = FileWatcher::new(files).unwrap();
    fs::write(included.join("a.yaml"), "").unwrap();
    assert!(detects_change(&mut watch).await, "added");
    fs::rename(included.join("a.yaml"), included.join("b.yaml")).unwrap();
    assert!(detects_change(&mut watch).await, "renamed");
    fs::remove_file(included.join("b.yaml")).unwrap();
    assert!(detects_change(&mut watch).await, "removed");
}

#[tokio::test]
async fn files_of_a_rejected_configuration_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["in_force.yaml", "rejected.yaml"] {
        fs::write(at(name), "1").unwrap();
    }
    let mut watch = watch_file(&at("in_force.yaml"));
    watch.follow_rejected(read_as(&at("rejected.yaml"), b"1"));
    let unchanged = timeout(Duration::from_secs(1), watch.changed()).await;
    assert!(unchanged.is_err(), "nothing has changed");
    for name in ["rejected.yaml", "in_force.yaml"] {
        fs::write(at(name), "2").unwrap();
        assert!(detects_change(&mut watch).await, "{name}");
    }
}
