#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;
use crate::config::document::to_json;
use crate::config::schema::schema;
use crate::config::yaml;

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);
/// An independent and complete implementation of the standard.
static REFERENCE: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(&SCHEMA).unwrap());
static FULL: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../config/portcullis.full.yaml");
    let (root, _) = yaml::read(text, 0).unwrap();
    to_json(&root.unwrap()).0
});

#[test]
fn every_keyword_of_the_schema_is_supported() {
    let supported = "$ref additionalProperties anyOf enum items maxLength maximum minItems minLength \
         minimum pattern properties required type";
    let annotations = "$defs $schema default description examples format patternErrorMessage title";
    let known: BTreeSet<&str> = supported
        .split_whitespace()
        .chain(annotations.split_whitespace())
        .collect();
    let mut used = BTreeSet::new();
    collect_keywords(&SCHEMA, &mut used);
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn collect_keywords<'s>(schema: &'s Value, used: &mut BTreeSet<&'s str>) {
    for (keyword, argument) in schema.as_object().into_iter().flatten() {
        used.insert(keyword);
        match keyword.as_str() {
            "properties" | "$defs" => {
                let parts = argument.as_object().into_iter().flatten();
                parts.for_each(|(_, part)| collect_keywords(part, used));
            }
            "anyOf" => {
                let branches = array(argument).iter();
                branches.for_each(|branch| collect_keywords(branch, used));
            }
            "items" | "additionalProperties" => collect_keywords(argument, used),
            _ => {}
        }
    }
}

fn collect_paths(value: &Value, path: &ConfigPath, paths: &mut Vec<ConfigPath>) {
    paths.push(path.clone());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_paths(item, &path.item(index), paths);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                collect_paths(value, &path.key(key), paths);
            }
        }
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..2000).prop_map(Value::from),
        (-2..3_i64).prop_map(|offset| Value::from((1_i64 << 53) + offset)),
    ];
    let texts = prop_oneof![
        "[0-9]{0,14}(ms|s|m|h|d|B|KiB|MiB|GiB|)",
        "(ip|user|session|token|route|header:)[a-z]?",
        "[a-z_]{0,3}",
        "\\PC{101}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers,
        texts.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            ("(url|weight|bind|[a-z])", inner).prop_map(|(key, value)| json!({ key: value })),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_the_reference_validator(edits in prop::collection::vec(
        (any::<Index>(), any_value()), 0..3))
    {
        let mut value = FULL.clone();
        for (index, new) in edits {
            let mut paths = Vec::new();
            collect_paths(&value, &ConfigPath::root(), &mut paths);
            *value.pointer_mut(index.get(&paths).pointer()).unwrap() = new;
        }
        let errors = Validator::new(&SCHEMA).unwrap().errors(&value);
        prop_assert_eq!(errors.is_empty(), REFERENCE.is_valid(&value));
    }
}
