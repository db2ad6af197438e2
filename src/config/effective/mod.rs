//! The configuration with all defaults, as the gateway uses it, without its secrets.

mod mask;
#[cfg(test)]
mod tests;
mod yaml_text;

use std::path::PathBuf;

use mask::Masks;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::document::{ConfigPath, SourceMap};
use super::file::File;
use super::file::provider::{ProviderKind, Users};
use super::reference::SECTIONS;

/// A configuration with all defaults. It is valid input, with references to variables in place of
/// secrets.
pub struct EffectiveConfig(Node);

/// A value. Entries of mappings are in file order, those that are not in the file last.
#[derive(Debug, PartialEq)]
enum Node {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl EffectiveConfig {
    /// Renders a valid file. `paths` are the values that are paths of files, with these resolved.
    pub(super) fn new(
        file: &File,
        source_map: &SourceMap,
        paths: &[(ConfigPath, PathBuf)],
    ) -> EffectiveConfig {
        // The types of the file are maps with text keys, which are always representable.
        let value = serde_json::to_value(file).unwrap_or_default();
        let conversion = Conversion {
            file,
            source_map,
            masks: Masks::new(source_map, paths),
        };
        EffectiveConfig(conversion.convert(value, &ConfigPath::root()))
    }

    /// Formats the configuration as YAML in block style.
    pub fn to_yaml(&self) -> String {
        yaml_text::format(&self.0)
    }

    /// Formats the configuration as indented JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap_or_default()
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Scalar(value) => value.serialize(serializer),
            Node::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Node::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

struct Conversion<'a> {
    file: &'a File,
    source_map: &'a SourceMap,
    masks: Masks<'a>,
}

impl Conversion<'_> {
    fn convert(&self, value: Value, location: &ConfigPath) -> Node {
        match value {
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                let items = items.map(|(index, item)| self.convert(item, &location.item(index)));
                Node::List(items.collect())
            }
            Value::Object(members) => {
                let members = members.into_iter();
                let members = members.map(|(key, value)| (location.key(&key), key, value));
                let mut members: Vec<_> = members
                    .filter(|(at, ..)| self.source_map.contains(at) || !self.has_meaning(at))
                    .collect();
                members.sort_by_key(|(at, key, _)| self.order(at, key));
                let entries = members.into_iter();
                let entries = entries.map(|(at, key, value)| (key, self.convert(value, &at)));
                Node::Map(entries.collect())
            }
            Value::String(text) => Node::Scalar(self.masks.show(&text, location).into()),
            value => Node::Scalar(value),
        }
    }

    /// Sections are in their usual order, other entries as in the file. The order of providers is
    /// that on the sign-in page.
    fn order(&self, location: &ConfigPath, key: &str) -> impl Ord + use<> {
        let section = SECTIONS.iter().position(|section| *section == key);
        let is_section = location.parent() == Some(ConfigPath::root());
        let is_present = self.source_map.contains(location) && !is_section;
        (
            section.filter(|_| is_section),
            !is_present,
            is_present.then(|| self.source_map.key_position(location)),
        )
    }

    /// Whether the presence of a key has a meaning of its own, so that its default must not be
    /// written.
    fn has_meaning(&self, location: &ConfigPath) -> bool {
        if location.pointer().ends_with("/tls/certificates") {
            return true;
        }
        let identity = &self.file.identity;
        let root = ConfigPath::root().key("identity");
        if !location.is_within(&root) {
            return false;
        }
        if location == &root.key("builtin") {
            return identity.upstream.is_some() || !identity.providers.is_empty();
        }
        let is_limit = |source: &str| location == &root.key(source).key("sign_in_limits");
        if is_limit("builtin") || is_limit("upstream") {
            return identity.sign_in_limits.is_some();
        }
        identity.providers.iter().any(|(name, provider)| {
            let root = root.key("providers").key(name);
            let claims = root.key("claims");
            let is_github = provider.kind == ProviderKind::GitHub;
            let is_external = provider.users == Users::External;
            let of_github = [root.key("scopes"), claims.key("user"), claims.key("roles")];
            let of_rows = [root.key("create"), root.key("link_by_email")];
            is_github && of_github.contains(location) || is_external && of_rows.contains(location)
        })
    }
}
