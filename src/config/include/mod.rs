//! Reads a configuration file and the files that it includes into one tree.

mod merge;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use merge::Merger;
use serde_json::Value;

use super::diagnostics::{Diagnostic, Position};
use super::document::{ConfigPath, resolve_scalar};
use super::environment::{LookUp, Substitution};
use super::files::{self, FilesRead, MAX_BYTES};
use super::yaml::{self, MAX_NODES, NodeKind, YamlNode, count_nodes};

const KEY: &str = "include";
/// Maximum number of files of a configuration.
const MAX_FILES: usize = 1000;
/// Maximum number of files on the way to an included one.
const MAX_DEPTH: usize = 8;

/// The files of a configuration as one tree.
pub(super) struct Document {
    pub(super) root: YamlNode,
    /// Duplicate keys, in one file or in several.
    pub(super) errors: Vec<Diagnostic>,
}

/// Reads the files of one configuration.
pub(super) struct DocumentReader<'a> {
    pub(super) schema: &'a Value,
    pub(super) look_up: LookUp<'a>,
    /// The configuration file and the included files, in the order of reading.
    pub(super) files: Vec<PathBuf>,
    pub(super) read: FilesRead,
    /// Where each file was included, by its path without links.
    included: Vec<(PathBuf, Position)>,
    /// The files whose inclusion is not complete, without links.
    open: Vec<PathBuf>,
    bytes: u64,
    nodes: usize,
}

impl<'a> DocumentReader<'a> {
    pub(super) fn new(schema: &'a Value, look_up: LookUp<'a>) -> DocumentReader<'a> {
        DocumentReader {
            schema,
            look_up,
            files: Vec::new(),
            read: FilesRead::default(),
            included: Vec::new(),
            open: Vec::new(),
            bytes: 0,
            nodes: 0,
        }
    }

    /// Reads the included files of the text of the configuration file. A tree that lacks a file is
    /// not returned, because all that refers to it would be an error.
    pub(super) fn read(&mut self, text: &str, path: &Path) -> Result<Document, Vec<Diagnostic>> {
        self.files.push(path.to_owned());
        self.bytes = text.len() as u64;
        self.open.extend(path.canonicalize());
        let (root, mut errors) = yaml::read(text, 0)?;
        let Some(mut root) = root else {
            return Err(vec![Diagnostic {
                position: Position::START,
                message: "the file is empty: listeners, upstreams and routes are required"
                    .to_owned(),
            }]);
        };
        self.nodes = count_nodes(&root);
        match self.expand(&mut root, &mut errors) {
            Ok(()) => Ok(Document { root, errors }),
            Err(fatal) => {
                errors.extend(fatal);
                Err(errors)
            }
        }
    }

    /// Merges the included files into the tree of a file. Returns the errors in reading them.
    fn expand(
        &mut self,
        root: &mut YamlNode,
        errors: &mut Vec<Diagnostic>,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut substitution = Substitution::new(self.look_up);
        let entries = take_entries(root, &mut substitution);
        let unset = substitution.unset.iter().map(|unset| Diagnostic {
            position: unset.position,
            message: unset.message(),
        });
        let mut fatal: Vec<Diagnostic> = unset.collect();
        fatal.append(&mut substitution.errors);
        if !fatal.is_empty() {
            return Err(fatal);
        }
        for (entry, position) in entries {
            let files = match self.find_files(&entry, position) {
                Ok(files) => files,
                Err(message) => {
                    fatal.push(Diagnostic { position, message });
                    continue;
                }
            };
            for file in files {
                match self.include(&file, position, errors) {
                    Ok(None) => {}
                    Ok(Some(addition)) => {
                        Merger::new(self.schema, &self.files, errors).merge(root, addition);
                    }
                    Err(more) => fatal.extend(more),
                }
            }
        }
        if fatal.is_empty() { Ok(()) } else { Err(fatal) }
    }

    /// Returns the file, or the files of the folder, that an entry names.
    fn find_files(&mut self, entry: &str, position: Position) -> Result<Vec<PathBuf>, String> {
        if entry.is_empty() {
            return Err("the name of an included file must not be empty".to_owned());
        }
        let folder = self.files.get(position.file).and_then(|file| file.parent());
        let path = folder.unwrap_or(Path::new("")).join(entry);
        if !path.is_dir() {
            return Ok(vec![path]);
        }
        let files = files::list_folder(&path);
        self.read
            .record_folder(&path, files.as_deref().unwrap_or_default());
        files.map_err(|error| format!("cannot read the folder {}: {error}", path.display()))
    }

    /// Reads one file and those that it includes.
    fn include(
        &mut self,
        path: &Path,
        position: Position,
        errors: &mut Vec<Diagnostic>,
    ) -> Result<Option<YamlNode>, Vec<Diagnostic>> {
        let fail = |message| vec![Diagnostic { position, message }];
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.check(path, &real, position).map_err(fail)?;
        let content = files::read_regular(path, MAX_BYTES);
        let bytes = content.as_ref().ok();
        self.read.record(path, bytes.map(|bytes| bytes.as_slice()));
        let shown = path.display();
        let content = content.map_err(|error| fail(describe_missing(path, &error)))?;
        let text = std::str::from_utf8(&content)
            .map_err(|_| fail(format!("{shown} is not UTF-8 text")))?;
        self.bytes += text.len() as u64;
        if self.bytes > MAX_BYTES {
            let message = "the files of the configuration are together larger than 16 MiB";
            return Err(fail(message.to_owned()));
        }
        let index = self.files.len();
        self.files.push(path.to_owned());
        self.included.push((real.clone(), position));
        let (root, duplicates) = yaml::read(text, index)?;
        errors.extend(duplicates);
        let Some(mut root) = root.filter(|root| !is_null(root)) else {
            return Ok(None);
        };
        self.nodes += count_nodes(&root);
        if self.nodes > MAX_NODES {
            let message = "the files of the configuration have too many entries";
            return Err(fail(message.to_owned()));
        }
        if !matches!(root.kind, NodeKind::Map(_)) {
            let message = "an included file must be a mapping of sections, such as \"routes\"";
            return Err(vec![Diagnostic {
                position: root.position,
                message: message.to_owned(),
            }]);
        }
        self.open.push(real);
        let outcome = self.expand(&mut root, errors);
        self.open.pop();
        outcome.map(|()| Some(root))
    }

    /// Checks that a file can be included here.
    fn check(&self, path: &Path, real: &Path, position: Position) -> Result<(), String> {
        let shown = path.display();
        if self.open.iter().any(|open| open == real) {
            return Err(format!("{shown} includes itself"));
        }
        if let Some((_, first)) = self.included.iter().find(|(file, _)| file == real) {
            let first = first.as_seen_from(position, &self.files);
            return Err(format!("{shown} is included twice, first at {first}"));
        }
        if self.open.len() > MAX_DEPTH {
            return Err(format!(
                "files are included more than {MAX_DEPTH} levels deep"
            ));
        }
        if self.files.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files are included"));
        }
        Ok(())
    }
}

/// Describes why a file cannot be read. A pattern of a shell is not expanded.
fn describe_missing(path: &Path, error: &str) -> String {
    let shown = path.display();
    let is_pattern = path.to_string_lossy().contains('*');
    let hint = match is_pattern {
        true => "; to include all files *.yaml of a folder, name the folder",
        false => "",
    };
    format!("cannot read {shown}: {error}{hint}")
}

/// Removes the included paths from the root of a file. A value of a wrong type stays and is reported
/// by the schema check.
fn take_entries(
    root: &mut YamlNode,
    substitution: &mut Substitution<'_>,
) -> Vec<(String, Position)> {
    let NodeKind::Map(entries) = &mut root.kind else {
        return Vec::new();
    };
    let Some(index) = entries.iter().position(|entry| entry.key == KEY) else {
        return Vec::new();
    };
    let Some(entry) = entries.get_mut(index) else {
        return Vec::new();
    };
    substitution.substitute(&mut entry.value, &ConfigPath::root().key(KEY));
    let paths = match &entry.value.kind {
        _ if is_null(&entry.value) => Some(Vec::new()),
        NodeKind::Scalar(_) => path_of(&entry.value).map(|path| vec![path]),
        NodeKind::List(items) => items.iter().map(path_of).collect(),
        NodeKind::Map(_) => None,
    };
    let Some(paths) = paths else {
        return Vec::new();
    };
    entries.remove(index);
    paths
}

fn path_of(node: &YamlNode) -> Option<(String, Position)> {
    match &node.kind {
        NodeKind::Scalar(scalar) if !is_null(node) => Some((scalar.text.clone(), node.position)),
        _ => None,
    }
}

fn is_null(node: &YamlNode) -> bool {
    matches!(&node.kind, NodeKind::Scalar(scalar) if resolve_scalar(scalar).is_null())
}
