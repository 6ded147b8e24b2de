//! Filters: one tree of conditions over the fields of a record, written as a dict, as text, or by the builder of Python.
//!
//! ```
//! use limnion_types::Filter;
//! use serde_json::json;
//!
//! let filter = Filter::from_text("year >= 2020 AND NOT tags CONTAINS 'draft'")?;
//! assert_eq!(filter, Filter::from_dict(&json!({"$and": [{"year": {"$gte": 2020}}, {"$not": {"tags": {"$contains": "draft"}}}]}))?);
//! assert!(filter.matches(&json!({"year": 2021, "tags": ["news"]})));
//! assert!(!filter.matches(&json!({"tags": ["news"]})));
//! # Ok::<(), limnion_types::Error>(())
//! ```
//!
//! # What a condition means
//!
//! | text | dict | holds where the field is there and |
//! |---|---|---|
//! | `a = 1`, `a == 1` | `{"a": 1}`, `{"a": {"$eq": 1}}` | its value equals the operand |
//! | `a != 1`, `a <> 1` | `{"a": {"$ne": 1}}` | its value does not |
//! | `a > 1`, `a >= 1`, `a < 1`, `a <= 1` | `$gt`, `$gte`, `$lt`, `$lte` | both are of one type, and in this order |
//! | `a IN [1, 2]` | `{"a": {"$in": [1, 2]}}` | it equals one of the operands |
//! | `a NOT IN [1, 2]` | `{"a": {"$nin": [1, 2]}}` | it equals none of them |
//! | `a CONTAINS 'x'` | `{"a": {"$contains": "x"}}` | it is a string with this part, or an array with this member |
//! | `a STARTSWITH 'x'`, `a ENDSWITH 'x'` | `$startswith`, `$endswith` | it is a string that begins, or ends, like this |
//! | `a EXISTS`, `EXISTS a` | `{"a": {"$exists": true}}` | nothing more |
//!
//! They are put together by `AND`, `OR`, `NOT` and parentheses, or `$and`, `$or`, `$nor`, `$not`; several conditions in one
//! dict must all hold. `ALL`, the empty text and `{}` hold for every record.
//!
//! # The rules
//!
//! | rule | so that |
//! |---|---|
//! | a missing field makes every condition false | `a != 1` and `a NOT IN [1]` do not find records without `a`; `NOT a EXISTS` does |
//! | `NOT` turns the result round, whatever it came from | `NOT a = 1` finds records without `a` |
//! | null is a value | `a = null` finds `{"a": null}` and not `{}`; `a EXISTS` finds it too |
//! | a bool is not a number | `a = 1` does not find `true`; `false < true` |
//! | numbers compare by their exact value | `1 = 1.0`, and `9007199254740993 > 9007199254740992.0` |
//! | strings compare by code point | `'Z' < 'a'`, and nothing is folded or normalized |
//! | values of different types are unequal, and have no order | `a != 1` finds `'1'`; `a < 1` does not |
//! | arrays and objects compare as a whole, and have no order | `a = [1, 2]` finds `[1.0, 2]`, not `[2, 1]`; the order of an object's members does not matter |
//! | `{"$limnion": "kind word"}` stands for a value of another type | `{"$limnion": "date 2026-01-02"}` is ordered among dates, by code point |
//!
//! Integers outside -2^63 .. 2^64 are read as the nearest float.
//!
//! # Paths
//!
//! `a.b.0` is the first element of the array `b` in the object `a`. A dot that is part of a name is written `\.`, a backslash
//! `\\`; text also takes names in quotes: `"a.b".c`. `$key`, `$namespace` and `$version` are those of the record itself; a
//! field of such a name is written `\$key`.
//!
//! # Limits
//!
//! Filters from users are at most [`MAX_DEPTH`] deep, have at most [`MAX_NODES`] conditions and operands, and operands are nested
//! at most [`MAX_OPERAND_DEPTH`] deep, so that nobody overflows the stack. What Rust code builds by hand is its own business.

use std::borrow::Cow;

use serde_json::{Map, Value};

mod bounds;
mod dict;
mod language;
mod names;
mod path;
mod values;

#[cfg(test)]
mod testing;

pub use bounds::{Bound, Reach};
pub use path::Path;
pub use values::{compare, equal, is_scalar, tagged, total_order};

/// The key of an object that stands for a value of another type.
pub const MARK: &str = "$limnion";

/// How deep a filter from a user may be nested.
pub const MAX_DEPTH: usize = 64;

/// How deep the operand of a condition may be nested.
pub const MAX_OPERAND_DEPTH: usize = 32;

/// How many conditions and operands a filter from a user may have.
pub const MAX_NODES: usize = 100_000;

/// A condition on the fields of a record. The [module](self) says what it means.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Holds always.
    All,
    /// Holds where all of them hold.
    And(Vec<Filter>),
    /// Holds where at least one of them holds.
    Or(Vec<Filter>),
    /// Holds where the other does not.
    Not(Box<Filter>),
    /// Holds where the field is there and passes the test.
    Field(Path, Test),
}

/// What is asked of the value of a field.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Test {
    /// It is there.
    Exists,
    /// It equals the operand.
    Eq(Value),
    /// It does not equal the operand.
    Ne(Value),
    /// It is of the operand's type, and greater.
    Gt(Value),
    /// It is of the operand's type, and greater or equal.
    Gte(Value),
    /// It is of the operand's type, and less.
    Lt(Value),
    /// It is of the operand's type, and less or equal.
    Lte(Value),
    /// It equals one of the operands.
    In(Members),
    /// It equals none of the operands.
    Nin(Members),
    /// It is a string with this part, or an array with this member.
    Contains(Value),
    /// It is a string that begins like this.
    StartsWith(String),
    /// It is a string that ends like this.
    EndsWith(String),
}

/// The fields of a record.
pub trait Fields {
    /// The value at a path; `None` where there is none.
    fn field(&self, path: &Path) -> Option<Cow<'_, Value>>;
}

impl Fields for Value {
    fn field(&self, path: &Path) -> Option<Cow<'_, Value>> {
        path.find_in(self).map(Cow::Borrowed)
    }
}

impl Fields for Map<String, Value> {
    fn field(&self, path: &Path) -> Option<Cow<'_, Value>> {
        let (first, rest) = path.names().split_first()?;
        if path.is_special() {
            return None;
        }
        let value = self.get(first)?;
        path::descend(value, rest).map(Cow::Borrowed)
    }
}

impl Filter {
    /// Holds where all of them hold: always, where there are none.
    pub fn and(filters: impl IntoIterator<Item = Filter>) -> Self {
        let mut filters: Vec<Filter> = filters.into_iter().collect();
        match filters.len() {
            0 => Filter::All,
            1 => filters.pop().unwrap_or(Filter::All),
            _ => Filter::And(filters),
        }
    }

    /// Holds where at least one of them holds: never, where there are none.
    pub fn or(filters: impl IntoIterator<Item = Filter>) -> Self {
        let mut filters: Vec<Filter> = filters.into_iter().collect();
        match filters.len() {
            0 => Filter::none(),
            1 => filters.pop().unwrap_or(Filter::All),
            _ => Filter::Or(filters),
        }
    }

    /// Holds never.
    pub fn none() -> Self {
        Filter::negate(Filter::All)
    }

    /// Holds where `filter` does not.
    pub fn negate(filter: Filter) -> Self {
        Filter::Not(Box::new(filter))
    }

    /// Whether it holds for a record with these fields. Looks at as few fields as it takes.
    pub fn matches<F: Fields + ?Sized>(&self, fields: &F) -> bool {
        match self {
            Filter::All => true,
            Filter::And(filters) => filters.iter().all(|filter| filter.matches(fields)),
            Filter::Or(filters) => filters.iter().any(|filter| filter.matches(fields)),
            Filter::Not(filter) => !filter.matches(fields),
            Filter::Field(path, test) => fields.field(path).is_some_and(|value| test.holds(&value)),
        }
    }

    /// The fields that it looks at, each once.
    pub fn paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.collect_paths(&mut paths);
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a Path>) {
        match self {
            Filter::All => {}
            Filter::And(filters) | Filter::Or(filters) => filters.iter().for_each(|f| f.collect_paths(paths)),
            Filter::Not(filter) => filter.collect_paths(paths),
            Filter::Field(path, _) => paths.push(path),
        }
    }

    /// How deep it is nested: 1 for a condition.
    fn depth(&self) -> usize {
        match self {
            Filter::All | Filter::Field(..) => 1,
            Filter::And(filters) | Filter::Or(filters) => {
                1 + filters.iter().map(Filter::depth).max().unwrap_or(0)
            }
            Filter::Not(filter) => 1 + filter.depth(),
        }
    }
}

impl Test {
    /// Whether a value passes.
    pub fn holds(&self, value: &Value) -> bool {
        let ordered = |operand: &Value| compare(value, operand);
        match self {
            Test::Exists => true,
            Test::Eq(operand) => equal(value, operand),
            Test::Ne(operand) => !equal(value, operand),
            Test::Gt(operand) => ordered(operand).is_some_and(|order| order.is_gt()),
            Test::Gte(operand) => ordered(operand).is_some_and(|order| order.is_ge()),
            Test::Lt(operand) => ordered(operand).is_some_and(|order| order.is_lt()),
            Test::Lte(operand) => ordered(operand).is_some_and(|order| order.is_le()),
            Test::In(members) => members.contains(value),
            Test::Nin(members) => !members.contains(value),
            Test::Contains(operand) => match value {
                Value::String(text) => operand.as_str().is_some_and(|part| text.contains(part)),
                Value::Array(items) => items.iter().any(|item| equal(item, operand)),
                _ => false,
            },
            Test::StartsWith(start) => value.as_str().is_some_and(|text| text.starts_with(start)),
            Test::EndsWith(end) => value.as_str().is_some_and(|text| text.ends_with(end)),
        }
    }
}

/// The operands of `IN`, sorted beside their own order so that a long list costs no more than its logarithm.
#[derive(Debug, Clone)]
pub struct Members {
    values: Vec<Value>,
    /// The positions of the scalars, sorted by [`total_order`].
    scalars: Vec<usize>,
}

impl Members {
    /// These values.
    pub fn new(values: Vec<Value>) -> Self {
        let mut scalars: Vec<usize> = Vec::with_capacity(values.len());
        scalars.extend(values.iter().enumerate().filter(|(_, value)| is_scalar(value)).map(|(at, _)| at));
        scalars.sort_by(|&a, &b| match (values.get(a), values.get(b)) {
            (Some(a), Some(b)) => total_order(a, b),
            _ => std::cmp::Ordering::Equal,
        });
        Self { values, scalars }
    }

    /// The values as they were given.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Whether one of them equals `value`.
    pub fn contains(&self, value: &Value) -> bool {
        if is_scalar(value) {
            let found = self.scalars.binary_search_by(|&at| match self.values.get(at) {
                Some(member) => total_order(member, value),
                None => std::cmp::Ordering::Greater,
            });
            return found.is_ok();
        }
        self.scalars.len() < self.values.len() && self.values.iter().any(|member| equal(member, value))
    }
}

/// Equal where the values are, in the same order.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::testing::{tests, values};
    use super::*;

    fn holds(filter: &str, record: &Value) -> bool {
        Filter::from_text(filter).unwrap().matches(record)
    }

    /// Every row of the tables of the module, and more: a filter, a record that matches, and one that does not.
    #[test]
    fn conditions_mean_what_the_tables_say() {
        for (filter, yes, no) in [
            ("a = 1", json!({"a": 1.0}), json!({"a": 2})),
            ("a = 'x'", json!({"a": "x"}), json!({"a": "X"})),
            ("a = true", json!({"a": true}), json!({"a": 1})),
            ("a = 1", json!({"a": 1}), json!({"a": true})),
            ("a = 1", json!({"a": 1}), json!({"a": "1"})),
            ("a = null", json!({"a": null}), json!({})),
            ("a != null", json!({"a": 0}), json!({})),
            ("a EXISTS", json!({"a": null}), json!({})),
            ("a != 1", json!({"a": "1"}), json!({"a": 1.0})),
            ("a != 1", json!({"a": true}), json!({})),
            ("a NOT IN [1]", json!({"a": 2}), json!({})),
            ("NOT a IN [1]", json!({}), json!({"a": 1})),
            ("NOT a = 1", json!({}), json!({"a": 1})),
            ("NOT a EXISTS", json!({}), json!({"a": null})),
            ("a < 1", json!({"a": 0.5}), json!({"a": "0"})),
            ("a < 1", json!({"a": -1}), json!({"a": false})),
            ("a < 1", json!({"a": -1}), json!({"a": null})),
            ("a > false", json!({"a": true}), json!({"a": 1})),
            ("a >= null", json!({"a": null}), json!({"a": 1})),
            (
                "a > 9007199254740992.0",
                json!({"a": 9007199254740993_u64}),
                json!({"a": 9007199254740992_u64}),
            ),
            ("a < 18446744073709551616.0", json!({"a": u64::MAX}), json!({"a": 2e19})),
            ("a < 'a'", json!({"a": "Z"}), json!({"a": "b"})),
            ("a > '\\uFFFF'", json!({"a": "😀"}), json!({"a": "z"})),
            ("a >= 'x'", json!({"a": "x"}), json!({"a": "w"})),
            ("a <= 1", json!({"a": 1}), json!({"a": [1]})),
            ("a = [1, 2]", json!({"a": [1.0, 2]}), json!({"a": [2, 1]})),
            ("a = {'x': 1, 'y': [2]}", json!({"a": {"y": [2], "x": 1.0}}), json!({"a": {"x": 1}})),
            ("a IN [1, 'x', null, [1]]", json!({"a": 1.0}), json!({"a": "y"})),
            ("a IN [1, 'x', null, [1]]", json!({"a": null}), json!({"a": true})),
            ("a IN [1, 'x', null, [1]]", json!({"a": [1]}), json!({"a": [2]})),
            ("a IN [{'$limnion': 'date 1'}]", json!({"a": {"$limnion": "date 1"}}), json!({"a": "date 1"})),
            ("a CONTAINS 'bc'", json!({"a": "abcd"}), json!({"a": "acbd"})),
            ("a CONTAINS 'bc'", json!({"a": ["x", "bc"]}), json!({"a": ["abcd"]})),
            ("a CONTAINS 1", json!({"a": [1.0]}), json!({"a": "1"})),
            ("a CONTAINS 'x'", json!({"a": ["x"]}), json!({"a": {"x": 1}})),
            ("a STARTSWITH 'ab'", json!({"a": "abc"}), json!({"a": ["ab"]})),
            ("a ENDSWITH 'bc'", json!({"a": "abc"}), json!({"a": "ab"})),
            ("a.b.1.c = 3", json!({"a": {"b": [0, {"c": 3}]}}), json!({"a": {"b": {"c": 3}}})),
            ("a.0 = 1", json!({"a": {"0": 1}}), json!({"a": [2, 1]})),
            (
                "a < {'$limnion': 'date 2'}",
                json!({"a": {"$limnion": "date 1"}}),
                json!({"a": {"$limnion": "day 1"}}),
            ),
            ("a = 1 AND b = 2", json!({"a": 1, "b": 2}), json!({"a": 1})),
            ("a = 1 OR b = 2", json!({"b": 2}), json!({"a": 2, "b": 1})),
        ] {
            assert!(holds(filter, &yes), "{filter} must find {yes}");
            assert!(!holds(filter, &no), "{filter} must not find {no}");
        }
        assert!(holds("ALL", &json!({})) && holds("", &json!(null)) && !holds("NOT ALL", &json!({})));
        assert!(!holds("a IN []", &json!({"a": 1})) && holds("a NOT IN []", &json!({"a": 1})));
    }

    #[test]
    fn a_map_has_the_fields_of_its_object() {
        let object = json!({"a": {"b": 1}});
        let filter = Filter::from_text("a.b = 1 AND NOT $key = 'a'").unwrap();
        assert!(filter.matches(object.as_object().unwrap()));
        assert!(filter.matches(&object));
    }

    #[test]
    fn the_fields_of_a_filter_are_listed_once() {
        let filter = Filter::from_text("b = 1 AND (a.c = 2 OR NOT b = 3)").unwrap();
        assert_eq!(filter.paths().iter().map(|path| path.as_str()).collect::<Vec<_>>(), ["a.c", "b"]);
    }

    proptest! {
        #[test]
        fn long_lists_find_what_short_comparisons_find(members in proptest::collection::vec(values(), 0..30), value in values()) {
            let expected = members.iter().any(|member| equal(member, &value));
            prop_assert_eq!(Members::new(members).contains(&value), expected);
        }

        #[test]
        fn a_record_that_matches_lies_inside_all_bounds(tests in proptest::collection::vec(tests(), 1..4), a in values()) {
            let path = Path::parse("a").unwrap();
            let filter = Filter::and(tests.into_iter().map(|test| Filter::Field(path.clone(), test)));
            let inside = |bound: Bound<'_>| match bound.reach {
                Reach::OneOf(values) => values.iter().any(|one| equal(one, &a)),
                Reach::AtLeast(low) => compare(&a, low).is_some_and(|order| order.is_ge()),
                Reach::AtMost(high) => compare(&a, high).is_some_and(|order| order.is_le()),
                Reach::Prefix(start) => a.as_str().is_some_and(|text| text.starts_with(start)),
            };
            if filter.matches(&json!({"a": a.clone()})) {
                prop_assert!(filter.bounds().into_iter().all(inside));
            }
        }
    }
}
