#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::document::to_json;
use crate::config::yaml;

fn node(value: Value) -> Node {
    match value {
        Value::Array(items) => Node::List(items.into_iter().map(node).collect()),
        Value::Object(members) => {
            let members = members.into_iter();
            Node::Map(members.map(|(key, value)| (key, node(value))).collect())
        }
        scalar => Node::Scalar(scalar),
    }
}

fn read_back(text: &str) -> Value {
    let (root, errors) = yaml::read(text, 0).unwrap();
    assert!(errors.is_empty(), "{text}");
    to_json(&root.unwrap()).0
}

#[test]
fn yaml_is_in_block_style() {
    let value = json!({
        "a": [{ "b": 1, "c": { "d": [] } }, "x"],
        "e": { "f": "off", "g": "${NAME}", "h": null, "i": "127.0.0.1:80", "j": "http://a:1" },
    });
    assert_eq!(
        yaml_text::format(&node(value)),
        "a:\n  - b: 1\n    c:\n      d: []\n  - x\n\
         e:\n  f: \"off\"\n  g: \"${NAME}\"\n  h: null\n  i: \"127.0.0.1:80\"\n  j: http://a:1\n"
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[-:#&*!|>'\"%@`?{}\\[\\], .~0-9a-z]{0,6}|null|true|~|0x1f|1e3|yes|---|\\.\\.\\."
            .prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z:# -]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn yaml_is_read_as_the_same_value(value in any_value()) {
        let text = yaml_text::format(&node(value.clone()));
        prop_assert_eq!(read_back(&text), value, "{}", text);
    }
}
