//! Generators for the tests of filters.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Filter, MARK, Members, Path, Test};

/// Scalars that collide, and some that are awkward.
pub(super) fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        (-3i64..4).prop_map(|n| json!(n as f64 / 2.0)),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(if n.is_finite() { n } else { 0.0 })),
        "[a-c]{0,2}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(d|dt) [0-2]".prop_map(|word| json!({ MARK: word })),
    ]
}

/// Any value.
pub(super) fn values() -> impl Strategy<Value = Value> {
    prop_oneof![9 => scalars(), 1 => Just(json!({ MARK: "d" }))].prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[ab]{1,2}", inner), 0..3)
                .prop_map(|items| Value::Object(items.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn paths() -> impl Strategy<Value = Path> {
    prop_oneof![
        4 => "[a-c](\\.[a-c0-1]){0,2}".prop_map(|text| Path::parse(&text).unwrap()),
        1 => Just(Path::parse("$key").unwrap()),
        1 => proptest::collection::vec(r#"and|[a-z0-9.'"$\\ é-]{1,4}"#, 1..3).prop_map(|names| Path::of(names).unwrap()),
    ]
}

/// Any test of a field.
pub(super) fn tests() -> impl Strategy<Value = Test> {
    let members = || proptest::collection::vec(values(), 0..5).prop_map(Members::new);
    prop_oneof![
        Just(Test::Exists),
        values().prop_map(Test::Eq),
        values().prop_map(Test::Ne),
        scalars().prop_map(Test::Gt),
        scalars().prop_map(Test::Gte),
        scalars().prop_map(Test::Lt),
        scalars().prop_map(Test::Lte),
        members().prop_map(Test::In),
        members().prop_map(Test::Nin),
        values().prop_map(Test::Contains),
        any::<String>().prop_map(Test::StartsWith),
        "[a-c]{0,2}".prop_map(Test::EndsWith),
    ]
}

/// Any filter as the parsers make them: no list of one.
pub(super) fn filters() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        9 => (paths(), tests()).prop_map(|(path, test)| Filter::Field(path, test)),
        1 => Just(Filter::All),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::and),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::or),
            inner.prop_map(Filter::negate),
        ]
    })
}
