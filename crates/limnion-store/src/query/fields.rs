//! The fields of a record, read from its JSON when they are asked for: those that are wanted are made, all else is skipped.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use limnion_types::filter::{Fields, Filter, MAX_OPERAND_DEPTH, Path};
use limnion_types::{Error, ErrorKind, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::model::{Content, Record, Seq};
use crate::payload::Part;

/// A field is read down to here, counted from the outside of the record; what is in the arrays and objects below is left
/// out. No operand and no path is nested as deep together, so that nothing which is left out can make two values equal.
const DEPTH: usize = 100;
const _: () = assert!(DEPTH > 2 * MAX_OPERAND_DEPTH + 2 && DEPTH < 120, "serde_json stops at 128");

/// A filter, made ready for many records.
#[derive(Debug)]
pub struct Matcher<'a> {
    filter: &'a Filter,
    wanted: Wanted,
}

impl<'a> Matcher<'a> {
    /// Makes a filter ready.
    pub fn new(filter: &'a Filter) -> Self {
        Self { filter, wanted: Wanted::new(filter.paths().into_iter().cloned()) }
    }

    /// Whether it holds for a record, whose value has been fetched.
    pub fn matches(&self, record: &Record) -> Result<bool> {
        Ok(self.filter.matches(&self.wanted.of(record)?))
    }
}

/// The fields that are wanted of each record.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Sorted, each once. The place of a path in it is its slot.
    paths: Vec<Path>,
    tree: Node,
    /// Whether there are paths that lead into the JSON.
    inside: bool,
}

/// What is wanted of a value: the whole, or what lies in it.
#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    inner: Vec<(String, Node)>,
}

/// Where the fields of a record come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) namespace: &'a str,
    pub(super) key: &'a str,
    pub(super) version: Option<Seq>,
    pub(super) metadata: Option<&'a str>,
    /// JSON text.
    pub(super) value: Option<&'a [u8]>,
}

/// The fields of one record.
pub(super) struct Row<'a> {
    wanted: &'a Wanted,
    source: Source<'a>,
    slots: OnceCell<Vec<Option<Value>>>,
}

impl Wanted {
    pub(super) fn new(paths: impl IntoIterator<Item = Path>) -> Self {
        let mut paths: Vec<Path> = paths.into_iter().collect();
        paths.sort_unstable();
        paths.dedup();
        let mut tree = Node::default();
        let mut inside = false;
        for (slot, path) in paths.iter().enumerate() {
            if !path.is_special() {
                inside = true;
                tree.want(path.names(), slot);
            }
        }
        Self { paths, tree, inside }
    }

    pub(super) fn row<'a>(&'a self, source: Source<'a>) -> Row<'a> {
        Row { wanted: self, source, slots: OnceCell::new() }
    }

    /// The fields of a record, whose value has been fetched.
    pub(super) fn of<'a>(&'a self, record: &'a Record) -> Result<Row<'a>> {
        let payload = &record.payload;
        let value = payload.value();
        let lies_elsewhere = payload.elsewhere().iter().any(|(part, _)| *part == Part::Value);
        if lies_elsewhere && payload.is_missing(Part::Value) {
            let message = format!("the value of {}/{} was not fetched", record.namespace, record.key);
            return Err(Error::new(ErrorKind::Internal, message));
        }
        Ok(self.row(Source {
            namespace: &record.namespace,
            key: &record.key,
            version: Some(record.version),
            metadata: payload.metadata(),
            value: (payload.content() != Content::Bytes).then_some(value),
        }))
    }

    fn read(&self, source: &Source<'_>) -> Vec<Option<Value>> {
        let mut slots = vec![None; self.paths.len()];
        if !self.inside {
            return slots;
        }
        if let Some(metadata) = source.metadata {
            self.tree.read(metadata.as_bytes(), &mut slots);
        }
        let missing = slots.iter().zip(&self.paths).any(|(slot, path)| slot.is_none() && !path.is_special());
        let Some(value) = source.value.filter(|_| missing) else { return slots };
        if source.metadata.is_none() {
            self.tree.read(value, &mut slots);
            return slots;
        }
        let mut more = vec![None; self.paths.len()];
        self.tree.read(value, &mut more);
        for (slot, value) in slots.iter_mut().zip(more) {
            if slot.is_none() {
                *slot = value;
            }
        }
        slots
    }
}

impl Fields for Row<'_> {
    fn field(&self, path: &Path) -> Option<Cow<'_, Value>> {
        if path.is_special() {
            return match path.as_str() {
                "$key" => Some(Cow::Owned(Value::from(self.source.key))),
                "$namespace" => Some(Cow::Owned(Value::from(self.source.namespace))),
                "$version" => Some(Cow::Owned(Value::from(self.source.version?))),
                _ => None,
            };
        }
        let slot = self.wanted.paths.binary_search(path).ok()?;
        let slots = self.slots.get_or_init(|| self.wanted.read(&self.source));
        slots.get(slot)?.as_ref().map(Cow::Borrowed)
    }
}

impl Node {
    fn want(&mut self, names: &[String], slot: usize) {
        let Some((first, rest)) = names.split_first() else {
            self.slot = Some(slot);
            return;
        };
        match self.inner.iter_mut().find(|(name, _)| name == first) {
            Some((_, node)) => node.want(rest, slot),
            None => {
                let mut node = Node::default();
                node.want(rest, slot);
                self.inner.push((first.clone(), node));
            }
        }
    }

    /// Fills the slots from the text of an object; leaves them alone where it is none.
    fn read(&self, text: &[u8], slots: &mut [Option<Value>]) {
        if text.trim_ascii_start().first() != Some(&b'{') {
            return;
        }
        if self.try_read(text, slots).is_err() {
            self.forget(slots);
            let tame = tame(text);
            if tame.is_none_or(|tame| self.try_read(&tame, slots).is_err()) {
                self.forget(slots);
            }
        }
    }

    fn try_read(&self, text: &[u8], slots: &mut [Option<Value>]) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_slice(text);
        Within { node: self, slots, depth: 0 }.deserialize(&mut json)?;
        json.end()
    }

    /// Empties the slots of this node and of all below it.
    fn forget(&self, slots: &mut [Option<Value>]) {
        if let Some(slot) = self.slot.and_then(|slot| slots.get_mut(slot)) {
            *slot = None;
        }
        self.inner.iter().for_each(|(_, node)| node.forget(slots));
    }

    /// Fills the slots from a value that is there already.
    fn fill(&self, value: Value, slots: &mut [Option<Value>]) {
        for (name, node) in &self.inner {
            let inner = match &value {
                Value::Object(object) => object.get(name),
                Value::Array(items) => Path::position(name).and_then(|at| items.get(at)),
                _ => None,
            };
            if let Some(inner) = inner {
                node.fill(inner.clone(), slots);
            }
        }
        if let Some(slot) = self.slot.and_then(|slot| slots.get_mut(slot)) {
            *slot = Some(value);
        }
    }
}

/// Reads what is wanted of one value.
struct Within<'a> {
    node: &'a Node,
    slots: &'a mut [Option<Value>],
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<(), D::Error> {
        if self.node.slot.is_none() {
            return json.deserialize_any(self);
        }
        let value = Whole { depth: self.depth }.deserialize(json)?;
        self.node.fill(value, self.slots);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(Name(&self.node.inner))? {
            match found.and_then(|at| self.node.inner.get(at)) {
                Some((_, node)) => {
                    // Of a name that comes twice, the last one counts.
                    node.forget(self.slots);
                    map.next_value_seed(Within { node, slots: self.slots, depth: self.depth + 1 })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        for at in 0_usize.. {
            let found = self.node.inner.iter().find(|(name, _)| Path::position(name) == Some(at));
            let more = match found {
                Some((_, node)) => items
                    .next_element_seed(Within { node, slots: self.slots, depth: self.depth + 1 })?
                    .is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }
}

/// Reads the name of a member: its place among those that are wanted.
struct Name<'a>(&'a [(String, Node)]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> std::result::Result<Self::Value, E> {
        Ok(self.0.iter().position(|(wanted, _)| wanted == name))
    }
}

/// Reads a whole value, down to [`DEPTH`].
struct Whole {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Whole {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut object = Map::new();
        if self.depth >= DEPTH {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        } else {
            while let Some(name) = map.next_key::<String>()? {
                object.insert(name, map.next_value_seed(Whole { depth: self.depth + 1 })?);
            }
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut array = Vec::new();
        if self.depth >= DEPTH {
            while items.next_element::<IgnoredAny>()?.is_some() {}
        } else {
            while let Some(item) = items.next_element_seed(Whole { depth: self.depth + 1 })? {
                array.push(item);
            }
        }
        Ok(Value::Array(array))
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(Value::String(value))
    }
}

/// The text with each number that is beyond every float replaced by the greatest float: Python writes integers of any
/// length, and one of them must not hide all other fields. `None` where there is no such number.
fn tame(text: &[u8]) -> Option<Vec<u8>> {
    let mut tame: Vec<u8> = Vec::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let length = match first {
            b'"' => {
                let mut escaped = false;
                let end = tail.iter().position(|&byte| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            b'-' | b'0'..=b'9' => {
                let belongs = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                rest.iter().position(|byte| !belongs(byte)).unwrap_or(rest.len())
            }
            _ => 1,
        };
        let (token, after) = rest.split_at_checked(length)?;
        let number = if first == b'"' { None } else { std::str::from_utf8(token).ok()?.parse::<f64>().ok() };
        match number {
            Some(number) if number.is_infinite() => {
                changed = true;
                let greatest = if number > 0.0 { f64::MAX } else { f64::MIN };
                tame.extend_from_slice(Value::from(greatest).to_string().as_bytes());
            }
            _ => tame.extend_from_slice(token),
        }
        rest = after;
    }
    changed.then_some(tame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{record, values};
    use super::*;

    fn finds(filter: &str, record: &Record) -> bool {
        Matcher::new(&Filter::from_text(filter).unwrap()).matches(record).unwrap()
    }

    #[test]
    fn metadata_comes_before_the_value() {
        let record = record("k", r#"{"a": 1, "b": {"c": 2}, "d": 4}"#, Some(r#"{"a": 9, "b": {"e": 3}}"#));
        for filter in [
            "a = 9",
            "b.c = 2",
            "b.e = 3",
            "d = 4",
            "b = {'e': 3}",
            "$key = 'k'",
            "$namespace = 'ns'",
            "$version = 7",
            "NOT z EXISTS",
            "a = 9 AND b.e = 3 AND d > 3 AND $version >= 7",
        ] {
            assert!(finds(filter, &record), "{filter}");
        }
        assert!(!finds("a = 1", &record));
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for text in ["[1]", "3", "\"{}\"", "", "{", "{\"a\": 1", "{\"a\": 1} 2", "{\"a\": x}"] {
            let record = record("k", text, None);
            assert!(!finds("a EXISTS", &record) && finds("NOT a EXISTS", &record), "{text}");
        }
        let mut record = record("k", r#"{"a": 1}"#, None);
        record.payload = super::super::testing::payload(Content::Bytes, r#"{"a": 1}"#, Some(r#"{"b": 1}"#));
        assert!(finds("NOT a EXISTS AND b = 1", &record));
    }

    #[test]
    fn fields_are_found_beside_what_is_hard_to_read() {
        let deep = format!("{}1{}", r#"[{"a": "#.repeat(5000), "}]".repeat(5000));
        let lists = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        let objects = format!("{}1{}", r#"{"a": "#.repeat(5000), "}".repeat(5000));
        let long = "9".repeat(400);
        let text = format!(
            r#"{{"deep": {deep}, "lists": {lists}, "objects": {objects}, "huge": {long}, "tiny": -{long}, "s": "\"-{long}", "a": {{"b": 1}}, "twice": {{"x": 1}}, "twice": 2}}"#
        );
        let record = record("k", &text, None);
        for filter in [
            "a.b = 1",
            "deep EXISTS",
            "NOT deep CONTAINS 1",
            "deep.0.a.0.a EXISTS",
            "lists.0.0 EXISTS",
            "objects.a.a EXISTS",
            "huge = 1.7976931348623157e308",
            "tiny < -1e308",
            "s ENDSWITH '99'",
            "twice = 2 AND NOT twice.x EXISTS",
        ] {
            assert!(finds(filter, &record), "{filter}");
        }
    }

    #[test]
    fn a_value_that_was_not_fetched_is_an_error() {
        let body = crate::Body::json(&b"{}"[..]);
        let elsewhere = crate::payload::Elsewhere { hash: [0; 32], length: 2 };
        let outlined = crate::payload::Outlined { value: Some(elsewhere), vectors: Vec::new() };
        let mut record = record("k", "{}", None);
        record.payload = crate::Payload::decode(crate::Payload::encode(&body, &outlined).into()).unwrap();
        let error = super::super::matches(&record, &Filter::from_text("a = 1").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    proptest! {
        #[test]
        fn paths_are_read_as_they_are_in_the_whole(
            value in proptest::collection::btree_map("[ab01]{1,2}", values(), 0..4),
            paths in proptest::collection::vec("[ab01]{1,2}(\\.[ab01]){0,2}", 1..5),
        ) {
            let value = json!(value);
            let paths: Vec<Path> = paths.iter().map(|path| Path::parse(path).unwrap()).collect();
            let wanted = Wanted::new(paths.clone());
            let record = record("k", &value.to_string(), None);
            let row = wanted.of(&record).unwrap();
            for path in &paths {
                let found = row.field(path);
                prop_assert_eq!(found.as_deref(), path.find_in(&value), "{}", path);
            }
        }
    }
}
