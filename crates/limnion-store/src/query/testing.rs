//! Records and values for the tests of queries.

use std::sync::Arc;

use limnion_types::filter::{MARK, Members, Test};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::{Body, Content, Kind, Record};
use crate::payload::{Outlined, Payload};

pub(super) fn payload(content: Content, value: &str, metadata: Option<&str>) -> Payload {
    let mut body = Body::json(value.as_bytes());
    body.content = content;
    body.metadata = metadata.map(Arc::from);
    Payload::decode(Payload::encode(&body, &Outlined::default()).into()).unwrap()
}

pub(super) fn record(key: &str, value: &str, metadata: Option<&str>) -> Record {
    Record {
        namespace: "ns".into(),
        key: key.into(),
        version: 7,
        time: 1,
        previous: 0,
        kind: Kind::Put,
        expires: None,
        payload: payload(Content::Json, value, metadata),
        places: Vec::new(),
    }
}

/// Scalars that collide, some that are awkward, and strings that are longer than keys.
pub(super) fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        (-3i64..4).prop_map(|n| json!(n as f64 / 2.0)),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u32..64, -2i64..3).prop_map(|(bits, n)| json!((1u64 << bits).wrapping_add_signed(n))),
        (0u32..64).prop_map(|bits| json!((1u64 << bits) as f64)),
        any::<f64>().prop_map(|n| json!(if n.is_finite() { n } else { 0.0 })),
        "[a-c]{0,2}".prop_map(Value::from),
        "a{254,258}b{0,2}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(d|dt) [0-2]".prop_map(|word| json!({ MARK: word })),
    ]
}

pub(super) fn values() -> impl Strategy<Value = Value> {
    scalars().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[ab01]", inner, 0..3).prop_map(|object| json!(object)),
        ]
    })
}

pub(super) fn tests() -> impl Strategy<Value = Test> {
    let members = || proptest::collection::vec(values(), 0..4).prop_map(Members::new);
    prop_oneof![
        values().prop_map(Test::Eq),
        values().prop_map(Test::Ne),
        scalars().prop_map(Test::Gt),
        scalars().prop_map(Test::Gte),
        scalars().prop_map(Test::Lt),
        scalars().prop_map(Test::Lte),
        members().prop_map(Test::In),
        members().prop_map(Test::Nin),
        "[a-c]{0,2}|a{253,259}".prop_map(Test::StartsWith),
    ]
}
