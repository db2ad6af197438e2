//! A private wall clock, which can be stepped while processes that use it run. Their monotonic
//! clocks are not affected.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// What the processes that are started with its environment take for the time.
pub struct Clock {
    folder: TempDir,
}

/// The environment of a process that uses the clock.
pub type Environment = Vec<(&'static str, PathBuf)>;

impl Clock {
    /// One that is right.
    pub fn start() -> Clock {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
        let compiled = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join("clock.so"))
            .arg(source)
            .status();
        assert!(compiled.unwrap().success(), "{source} was not compiled");
        let clock = Clock { folder };
        clock.step(0);
        clock
    }

    /// Sets the clock this many seconds before or after the machine's.
    pub fn step(&self, seconds: i64) {
        let mut offset = File::options();
        // Written over and never cut short: it is mapped by those who go by it.
        let offset = offset.create(true).write(true).truncate(false);
        let nanoseconds = seconds * 1_000_000_000;
        let written = offset
            .open(self.offset())
            .and_then(|mut file| file.write_all(&nanoseconds.to_ne_bytes()));
        written.unwrap();
    }

    pub fn environment(&self) -> Environment {
        vec![
            ("LD_PRELOAD", self.folder.path().join("clock.so")),
            ("TEST_CLOCK", self.offset()),
        ]
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}
