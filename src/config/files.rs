//! Access to the files of a configuration.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Maximum size of any file, in bytes.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// Maximum number of files in an included folder.
const MAX_ENTRIES: usize = 1000;

/// The files and folders that a configuration was read from, each with a hash of its content.
#[derive(Debug, Clone, Default)]
pub struct FilesRead(BTreeMap<PathBuf, u64>);

impl FilesRead {
    /// Records a file with the content that was read, if it could be.
    pub(super) fn record(&mut self, path: &Path, content: Option<&[u8]>) {
        self.0.insert(path.to_owned(), hash_file(content));
    }

    /// Records a folder with the files that are included.
    pub(super) fn record_folder(&mut self, path: &Path, files: &[PathBuf]) {
        self.0.insert(path.to_owned(), hash_folder(files));
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    /// Adds files, with their current content unless they were read.
    pub(super) fn add<'p>(&mut self, paths: impl IntoIterator<Item = &'p PathBuf>) {
        for path in paths {
            self.0
                .entry(path.clone())
                .or_insert_with(|| hash_current(path));
        }
    }

    /// Hashes the current content, and returns whether it differs.
    pub(super) fn refresh(&mut self) -> bool {
        let mut differs = false;
        for (path, hash) in &mut self.0 {
            let current = hash_current(path);
            differs |= current != *hash;
            *hash = current;
        }
        differs
    }
}

fn hash_current(path: &Path) -> u64 {
    if path.is_dir() {
        hash_folder(&list_folder(path).unwrap_or_default())
    } else {
        hash_file(
            read_regular(path, MAX_BYTES)
                .ok()
                .as_deref()
                .map(Vec::as_slice),
        )
    }
}

fn hash_file(content: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match content {
        Some(content) => {
            hasher.write_u8(1);
            hasher.write(content);
        }
        None => hasher.write_u8(0),
    }
    hasher.finish()
}

fn hash_folder(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(2);
    for file in files {
        hasher.write(file.as_os_str().as_encoded_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

/// Reads a file of at most `maximum` bytes.
pub(super) fn read(path: &Path, maximum: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = File::open(path).map_err(|error| describe_error(&error))?;
    let metadata = file.metadata().map_err(|error| describe_error(&error))?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    read_bounded(file, maximum)
}

/// As [`read`], but never opens a named pipe, which would wait for its writer.
pub(super) fn read_regular(path: &Path, maximum: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let metadata = fs::metadata(path).map_err(|error| describe_error(&error))?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err("it is not a regular file".to_owned());
    }
    read(path, maximum)
}

/// Reads at most `maximum` bytes.
pub(super) fn read_bounded(input: impl Read, maximum: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    input
        .take(maximum + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| describe_error(&error))?;
    if bytes.len() as u64 > maximum {
        return Err(format!("it is larger than {} MiB", maximum >> 20));
    }
    Ok(bytes)
}

/// Lists the files `*.yaml` of a folder in the order of their names, without hidden ones.
pub(super) fn list_folder(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| describe_error(&error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| describe_error(&error))?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml");
        let name = path.file_name().unwrap_or_default();
        if !is_yaml || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if files.len() == MAX_ENTRIES {
            return Err(format!("it has more than {MAX_ENTRIES} files"));
        }
        files.push(path);
    }
    files.sort();
    Ok(files)
}

/// Describes an I/O error without the error number of the operating system.
fn describe_error(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
