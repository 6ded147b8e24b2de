//! What declared indexes are ordered by, and which stretch of an index a filter needs.
//!
//! ```text
//! u8     1 null, 2 false, 3 true, 4 number, 5 string, 6 what stands for another type
//!        number: the nearest f64, its bits turned so that they are in order (big-endian), then u16: what the number has
//!                beyond that f64, plus 2^15 (big-endian)
//!        string: its UTF-8 bytes; the word, for what stands for another type
//! ```
//!
//! Keys are in the order in which filters compare values, and those of equal numbers are equal. They end after [`LONGEST`]
//! bytes: those of long strings that differ later are equal. So an index gives candidates, perhaps some too many, and the
//! filter decides.

use std::collections::BTreeSet;

use limnion_types::filter::{Filter, Path, Reach, tagged};
use serde_json::{Number, Value};

/// The longest key in bytes.
const LONGEST: usize = 256;

const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const NUMBER: u8 = 4;
const STRING: u8 = 5;
const WORD: u8 = 6;

/// Stretches of an index from one entry to another, both included; in order, and without overlaps.
pub type Ranges = Vec<(Vec<u8>, Vec<u8>)>;

/// What an index finds a value by. Arrays and objects are in no index.
pub fn index_key(value: &Value) -> Option<Vec<u8>> {
    let mut key = match value {
        Value::Null => vec![NULL],
        Value::Bool(false) => vec![FALSE],
        Value::Bool(true) => vec![TRUE],
        Value::Number(number) => number_key(number),
        Value::String(text) => text_key(STRING, text),
        Value::Array(_) => return None,
        Value::Object(_) => text_key(WORD, tagged(value)?.1),
    };
    key.truncate(LONGEST);
    Some(key)
}

fn text_key(kind: u8, text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let text = text.get(..LONGEST).unwrap_or(text);
    let mut key = Vec::with_capacity(text.len() + 1);
    key.push(kind);
    key.extend_from_slice(text);
    key
}

#[expect(clippy::big_endian_bytes, reason = "bytes are compared from the first one on")]
fn number_key(number: &Number) -> Vec<u8> {
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    // Rounding keeps the order, and what it took away tells apart what it made equal: at most 2^10, for 64 bits.
    let nearest = match whole {
        Some(whole) => whole as f64,
        None => number.as_f64().unwrap_or_default(),
    };
    let beyond = whole.map_or(0, |whole| whole - nearest as i128);
    // There is one zero.
    let bits = if nearest == 0.0 { 0 } else { nearest.to_bits() };
    let turned = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    let mut key = vec![NUMBER];
    key.extend_from_slice(&turned.to_be_bytes());
    key.extend_from_slice(&((beyond + (1 << 15)) as u16).to_be_bytes());
    key
}

/// The index that knows best where the records are that match a filter, and where in it they are; `None` where no index
/// knows. An index is its number and its field.
pub fn candidates(filter: &Filter, indexes: &[(u32, String)]) -> Option<(u32, Ranges)> {
    let bounds = filter.bounds();
    let mut best: Option<(usize, u32, Ranges)> = None;
    for (id, field) in indexes {
        let Ok(path) = Path::parse(field) else { continue };
        if path.as_str() == "$version" {
            // It has no entries: it is not known when they are made.
            continue;
        }
        let mut stretch = Stretch::default();
        for bound in bounds.iter().filter(|bound| *bound.path == path) {
            stretch.narrow(&bound.reach);
        }
        if let Some((width, ranges)) = stretch.into_ranges()
            && best.as_ref().is_none_or(|(least, ..)| width < *least)
        {
            best = Some((width, *id, ranges));
        }
    }
    best.map(|(_, id, ranges)| (id, ranges))
}

/// What is left of an index when one bound after the other is put on it.
#[derive(Default)]
struct Stretch {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    points: Option<BTreeSet<Vec<u8>>>,
    /// How many of the bounds were more than a type on one side.
    sides: usize,
}

impl Stretch {
    fn narrow(&mut self, reach: &Reach<'_>) {
        match reach {
            Reach::OneOf(values) => {
                let keys: Option<BTreeSet<Vec<u8>>> = values
                    .iter()
                    // An operand that equals nothing with a key has none itself: it is in no index, so do without.
                    .map(|value| index_key(value))
                    .collect();
                let Some(keys) = keys else { return };
                self.points = Some(match self.points.take() {
                    Some(points) => points.intersection(&keys).cloned().collect(),
                    None => keys,
                });
            }
            Reach::AtLeast(value) => self.between(index_key(value), type_end(value)),
            Reach::AtMost(value) => self.between(type_start(value), index_key(value)),
            Reach::Prefix(start) => {
                let from = text_key(STRING, start);
                let mut to = from.clone();
                // No UTF-8 has this byte.
                to.push(0xFF);
                self.between(Some(from), Some(to));
                self.sides += 1;
            }
        }
    }

    fn between(&mut self, from: Option<Vec<u8>>, to: Option<Vec<u8>>) {
        let (Some(mut from), Some(to)) = (from, to) else { return };
        from.truncate(LONGEST);
        self.sides += 1;
        if self.from.as_ref().is_none_or(|before| *before < from) {
            self.from = Some(from);
        }
        if self.to.as_ref().is_none_or(|before| *before > to) {
            self.to = Some(to);
        }
    }

    /// What is left, and a guess of how much that is.
    fn into_ranges(self) -> Option<(usize, Ranges)> {
        let inside = |key: &Vec<u8>| {
            self.from.as_ref().is_none_or(|from| from <= key) && self.to.as_ref().is_none_or(|to| key <= to)
        };
        if let Some(points) = &self.points {
            let ranges: Ranges =
                points.iter().filter(|key| inside(key)).map(|key| (key.clone(), key.clone())).collect();
            return Some((ranges.len(), ranges));
        }
        let (Some(from), Some(to)) = (self.from, self.to) else { return None };
        // Without statistics: a range of two sides is narrower than one of one side, and long lists are narrower than both.
        let width = if self.sides > 1 { 1 << 20 } else { 1 << 21 };
        Some(if from <= to { (width, vec![(from, to)]) } else { (0, Vec::new()) })
    }
}

/// Before all values that are ordered with this one.
fn type_start(value: &Value) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null => vec![NULL],
        Value::Bool(_) => vec![FALSE],
        Value::Number(_) => vec![NUMBER],
        Value::String(_) => vec![STRING],
        // Up to the blank behind the kind: `datetime` is not a `date`.
        value => text_key(WORD, &format!("{} ", tagged(value)?.0)),
    })
}

/// After all values that are ordered with this one.
fn type_end(value: &Value) -> Option<Vec<u8>> {
    let mut end = match value {
        Value::Null => return Some(vec![NULL]),
        Value::Bool(_) => return Some(vec![TRUE]),
        value => type_start(value)?,
    };
    end.truncate(LONGEST);
    // No number is that great, and no UTF-8 has these bytes.
    end.extend_from_slice(&[0xFF, 0xFF]);
    Some(end)
}

#[cfg(test)]
mod tests {
    use limnion_types::filter::{MARK, Test, compare, equal, is_scalar, total_order};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{record, scalars, tests, values};
    use super::super::{entries, entry_of, matches};
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::from_text(text).unwrap()
    }

    fn indexes(fields: &[&str]) -> Vec<(u32, String)> {
        fields.iter().zip(1..).map(|(field, id)| (id, (*field).to_owned())).collect()
    }

    #[test]
    fn the_index_that_knows_most_is_chosen() {
        let declared = indexes(&["year", "lang", "$key", "$version", "a..b"]);
        for (text, expected) in [
            ("year > 2020", Some(1)),
            ("year > 2020 AND lang = 'el'", Some(2)),
            ("year IN [1, 2, 3] AND lang = 'el'", Some(2)),
            ("year > 2020 AND year < 2022 AND lang STARTSWITH 'e'", Some(1)),
            ("$key STARTSWITH 'x'", Some(3)),
            ("$version = 3", None),
            ("year > 2020 OR lang = 'el'", None),
            ("NOT year = 2020", None),
            ("year != 2020", None),
            ("year = [1]", None),
            ("year IN [1, [2]]", None),
            ("other = 1", None),
        ] {
            assert_eq!(candidates(&filter(text), &declared).map(|(id, _)| id), expected, "{text}");
        }
        // What cannot be is looked for nowhere.
        for text in
            ["year = 1 AND year = 2", "year > 1 AND year < 0", "year > 1 AND year < 'x'", "year IN []"]
        {
            assert_eq!(candidates(&filter(text), &declared), Some((1, Vec::new())), "{text}");
        }
    }

    #[test]
    fn fields_without_order_have_no_entries() {
        let found = record("k", r#"{"a": [1], "b": {"c": 2}, "d": null}"#, Some(r#"{"e": "x"}"#));
        let fields = ["a", "b", "b.c", "d", "e", "z", "$key", "$version", "a..b"];
        let value = Some(found.payload.value());
        let all = entries("ns", "k", found.payload.metadata(), value, fields.into_iter());
        let has: Vec<bool> = all.iter().map(Option::is_some).collect();
        assert_eq!(has, [false, false, true, true, true, false, true, false, false]);
        for (field, entry) in fields.iter().zip(all) {
            assert_eq!(entry_of(&found, field), entry, "{field}");
        }
    }

    /// Values that are near each other, or equal though they are written in two ways.
    fn neighbours() -> Vec<Value> {
        let mut all =
            vec![json!(null), json!(false), json!(true), json!(""), json!("a"), json!("a\0"), json!("b")];
        all.extend([
            json!(0),
            json!(0.0),
            json!(-0.0),
            json!(5e-324),
            json!(-5e-324),
            json!(1e300),
            json!(-1e300),
        ]);
        for bits in [0, 1, 24, 52, 53, 54, 62, 63] {
            let power = 1_u64 << bits;
            all.extend([json!(power), json!(power - 1), json!(power + 1), json!(power as f64)]);
            all.extend([
                json!((power as i64).wrapping_neg()),
                json!(-(power as f64)),
                json!(power as f64 + 0.5),
            ]);
        }
        all.extend([json!(u64::MAX), json!(u64::MAX as f64), json!(i64::MAX), json!(i64::MIN + 1)]);
        all.extend(["d 1", "d 2", "dt 1", "dt 2"].map(|word| json!({ MARK: word })));
        all
    }

    #[test]
    fn keys_and_ranges_of_short_values_are_exact() {
        let all = neighbours();
        for bound in &all {
            let ranges = |test| {
                let filter = Filter::Field(Path::parse("a").unwrap(), test);
                candidates(&filter, &indexes(&["a"])).unwrap().1
            };
            let [equals, least, most] =
                [Test::Eq(bound.clone()), Test::Gte(bound.clone()), Test::Lte(bound.clone())].map(ranges);
            for value in &all {
                let key = index_key(value).unwrap();
                assert_eq!(key.cmp(&index_key(bound).unwrap()), total_order(value, bound), "{value} {bound}");
                let among = |ranges: &Ranges| ranges.iter().any(|(from, to)| *from <= key && key <= *to);
                assert_eq!(among(&equals), equal(value, bound), "{value} = {bound}");
                let order = compare(value, bound);
                assert_eq!(among(&least), order.is_some_and(|order| order.is_ge()), "{value} >= {bound}");
                assert_eq!(among(&most), order.is_some_and(|order| order.is_le()), "{value} <= {bound}");
            }
        }
    }

    #[test]
    fn strings_longer_than_keys_are_candidates() {
        let long: Vec<String> =
            (LONGEST - 3..LONGEST + 4).flat_map(|n| ["", "b"].map(|end| "a".repeat(n) + end)).collect();
        for bound in &long {
            let eq = |text: &String| Value::from(text.as_str());
            for test in [
                Test::Eq(eq(bound)),
                Test::StartsWith(bound.clone()),
                Test::Gte(eq(bound)),
                Test::Lte(eq(bound)),
            ] {
                let filter = Filter::Field(Path::parse("a").unwrap(), test);
                let (_, ranges) = candidates(&filter, &indexes(&["a"])).unwrap();
                for value in &long {
                    let key = index_key(&eq(value)).unwrap();
                    let among = ranges.iter().any(|(from, to)| *from <= key && key <= *to);
                    assert!(among || !filter.matches(&json!({ "a": value })), "{filter} {value}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn keys_are_ordered_as_values_are(a in scalars(), b in scalars()) {
            let (x, y) = (index_key(&a).unwrap(), index_key(&b).unwrap());
            let order = total_order(&a, &b);
            prop_assert!(x.cmp(&y) == order || x.len() == LONGEST && x == y, "{} {}", a, b);
            prop_assert!(x.len() <= LONGEST);
        }

        #[test]
        fn only_scalars_have_keys(value in values()) {
            prop_assert_eq!(index_key(&value).is_some(), is_scalar(&value));
        }

        #[test]
        fn all_that_match_are_among_the_candidates(
            value in values(),
            tests in proptest::collection::vec(tests(), 1..4),
        ) {
            let path = Path::parse("a").unwrap();
            let filter = Filter::and(tests.into_iter().map(|test| Filter::Field(path.clone(), test)));
            let record = record("k", &json!({ "a": value }).to_string(), None);
            let found = candidates(&filter, &indexes(&["a"]));
            if let Some((_, ranges)) = &found {
                prop_assert!(ranges.iter().all(|(from, to)| from <= to));
                prop_assert!(ranges.is_sorted_by(|(_, to), (from, _)| to < from));
            }
            if matches(&record, &filter).unwrap() && let Some((_, ranges)) = found {
                let key = entry_of(&record, "a").expect("a candidate has an entry");
                prop_assert!(ranges.iter().any(|(from, to)| *from <= key && key <= *to));
            }
        }
    }
}
