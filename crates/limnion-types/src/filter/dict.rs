//! The dict form: `{"year": {"$gte": 2020}, "$or": [{"a": 1}, {"b": {"$exists": true}}]}`.

use std::fmt;

use serde_json::{Map, Value, json};

use super::names::{COMPARISONS, LOGICAL, Operand, SPECIAL, nearest, words};
use super::{Filter, MARK, MAX_DEPTH, MAX_NODES, MAX_OPERAND_DEPTH, Members, Path, Test};
use crate::{Error, ErrorKind, Result};

impl Filter {
    /// Reads the dict form. An error of kind validation says where it is wrong.
    pub fn from_dict(dict: &Value) -> Result<Self> {
        let filter = Reader { nodes: 0 }.filter(dict, &Place::Root)?;
        if filter.depth() > MAX_DEPTH {
            return Err(too_deep());
        }
        Ok(filter)
    }

    /// The dict form, which reads back as the same filter.
    pub fn to_dict(&self) -> Value {
        let list = |filters: &[Filter]| filters.iter().map(Filter::to_dict).collect::<Vec<_>>();
        match self {
            Filter::All => json!({}),
            Filter::And(filters) => json!({ "$and": list(filters) }),
            Filter::Or(filters) => json!({ "$or": list(filters) }),
            Filter::Not(filter) => json!({ "$not": filter.to_dict() }),
            Filter::Field(path, test) => {
                let (operator, _, operand) = words(test);
                let operand = match operand {
                    Operand::None => Value::Bool(true),
                    Operand::Value(value) => value.clone(),
                    Operand::List(members) => Value::Array(members.values().to_vec()),
                    Operand::Text(text) => Value::String(text.to_owned()),
                };
                json!({ path.as_str(): { operator: operand } })
            }
        }
    }
}

/// Where in the dict something is: for messages.
enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn depth(&self) -> usize {
        match self {
            Place::Root => 0,
            Place::Key(outer, _) | Place::Item(outer, _) => 1 + outer.depth(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => f.write_str("filter"),
            Place::Key(outer, key) => write!(f, "{outer}[{key:?}]"),
            Place::Item(outer, at) => write!(f, "{outer}[{at}]"),
        }
    }
}

fn wrong(place: &Place<'_>, message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Validation, format!("{place} {message}"))
}

/// Without its place, which would be as long as the nesting is deep.
fn too_deep() -> Error {
    wrong(&Place::Root, format!("must be nested at most {MAX_DEPTH} deep"))
}

/// What a value is, and the value itself where it is short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(object) => match object.keys().next() {
            Some(key) => format!("a dict with {key:?}"),
            None => "an empty dict".to_owned(),
        },
        Value::String(text) if text.len() > 40 => "a long string".to_owned(),
        value => value.to_string(),
    }
}

struct Reader {
    nodes: usize,
}

impl Reader {
    fn count(&mut self) -> Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("must have at most {MAX_NODES} conditions and operands");
            return Err(wrong(&Place::Root, message));
        }
        Ok(())
    }

    fn filter(&mut self, dict: &Value, place: &Place<'_>) -> Result<Filter> {
        // Each level of the filter is at most a key and an item.
        if place.depth() > 2 * MAX_DEPTH {
            return Err(too_deep());
        }
        let Value::Object(dict) = dict else {
            return Err(wrong(place, format!("must be a dict of conditions, got {}", shown(dict))));
        };
        let mut all = Vec::with_capacity(dict.len());
        for (key, value) in dict {
            self.count()?;
            let here = Place::Key(place, key);
            match key.as_str() {
                "$and" => all.push(Filter::and(self.filters(value, &here)?)),
                "$or" => all.push(Filter::or(self.filters(value, &here)?)),
                "$nor" => all.push(Filter::negate(Filter::or(self.filters(value, &here)?))),
                "$not" => all.push(Filter::negate(self.filter(value, &here)?)),
                _ => self.field(key, value, &here, &mut all)?,
            }
        }
        Ok(Filter::and(all))
    }

    fn filters(&mut self, list: &Value, place: &Place<'_>) -> Result<Vec<Filter>> {
        let Value::Array(list) = list else {
            return Err(wrong(place, format!("must be a list of filters, got {}", shown(list))));
        };
        list.iter().enumerate().map(|(at, dict)| self.filter(dict, &Place::Item(place, at))).collect()
    }

    fn field(&mut self, key: &str, value: &Value, place: &Place<'_>, all: &mut Vec<Filter>) -> Result<()> {
        let path = match Path::parse(key) {
            Ok(path) => path,
            Err(error) if !key.starts_with('$') => return Err(error.within("filter")),
            Err(_) => return Err(unknown_operator(key, value, place)),
        };
        match value {
            Value::Object(tests)
                if !tests.contains_key(MARK) && tests.keys().any(|name| name.starts_with('$')) =>
            {
                self.tests(&path, tests, place, all)
            }
            Value::Object(object) if looks_like_tests(object) => {
                let names: Vec<_> = object.keys().filter_map(|name| nearest(name, &COMPARISONS)).collect();
                Err(wrong(place, format!("has operators without $, got {}", shown(value))).suggest(format!(
                    "write {}, or {{\"$eq\": ...}} to compare with the dict itself",
                    names.join(", ")
                )))
            }
            _ => {
                all.push(Filter::Field(path, Test::Eq(self.operand(value, place)?)));
                Ok(())
            }
        }
    }

    fn tests(
        &mut self,
        path: &Path,
        tests: &Map<String, Value>,
        place: &Place<'_>,
        all: &mut Vec<Filter>,
    ) -> Result<()> {
        if place.depth() > 2 * MAX_DEPTH {
            return Err(too_deep());
        }
        for (operator, value) in tests {
            self.count()?;
            let here = Place::Key(place, operator);
            let test = match operator.as_str() {
                "$eq" => Test::Eq(self.operand(value, &here)?),
                "$ne" => Test::Ne(self.operand(value, &here)?),
                "$gt" => Test::Gt(self.scalar(value, &here)?),
                "$gte" => Test::Gte(self.scalar(value, &here)?),
                "$lt" => Test::Lt(self.scalar(value, &here)?),
                "$lte" => Test::Lte(self.scalar(value, &here)?),
                "$in" => Test::In(self.list(value, &here)?),
                "$nin" => Test::Nin(self.list(value, &here)?),
                "$contains" => Test::Contains(self.operand(value, &here)?),
                "$startswith" => Test::StartsWith(text(value, &here)?),
                "$endswith" => Test::EndsWith(text(value, &here)?),
                "$exists" => match value {
                    Value::Bool(true) => Test::Exists,
                    Value::Bool(false) => {
                        all.push(Filter::negate(Filter::Field(path.clone(), Test::Exists)));
                        continue;
                    }
                    _ => return Err(wrong(&here, format!("must be true or false, got {}", shown(value)))),
                },
                "$not" => {
                    let Value::Object(tests) = value else {
                        return Err(wrong(
                            &here,
                            format!("must be a dict of operators, got {}", shown(value)),
                        )
                        .suggest("write {\"$ne\": ...} for a field that has another value"));
                    };
                    let mut inner = Vec::new();
                    self.tests(path, tests, &here, &mut inner)?;
                    all.push(Filter::negate(Filter::and(inner)));
                    continue;
                }
                _ => return Err(unknown_operator(operator, value, place)),
            };
            all.push(Filter::Field(path.clone(), test));
        }
        Ok(())
    }

    /// An operand, checked for its size.
    fn operand(&mut self, value: &Value, place: &Place<'_>) -> Result<Value> {
        self.measure(value, 1, place)?;
        Ok(value.clone())
    }

    fn measure(&mut self, value: &Value, depth: usize, place: &Place<'_>) -> Result<()> {
        self.count()?;
        if depth > MAX_OPERAND_DEPTH {
            return Err(wrong(place, format!("must be nested at most {MAX_OPERAND_DEPTH} deep")));
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.measure(item, depth + 1, place)),
            Value::Object(object) => {
                object.values().try_for_each(|item| self.measure(item, depth + 1, place))
            }
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, value: &Value, place: &Place<'_>) -> Result<Value> {
        if !super::is_scalar(value) {
            let message = format!("must be a number, a string, a bool or null, got {}", shown(value));
            return Err(wrong(place, message).suggest("lists and dicts have no order"));
        }
        self.operand(value, place)
    }

    fn list(&mut self, value: &Value, place: &Place<'_>) -> Result<Members> {
        let Value::Array(items) = value else {
            return Err(wrong(place, format!("must be a list of values, got {}", shown(value)))
                .suggest("to ask whether an array has a member, write $contains"));
        };
        let items = items.iter().map(|item| self.operand(item, place));
        Ok(Members::new(items.collect::<Result<_>>()?))
    }
}

fn text(value: &Value, place: &Place<'_>) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(wrong(place, format!("must be a string, got {}", shown(value)))),
    }
}

/// Whether every name is that of an operator: then somebody forgot the `$`, and would find nothing.
fn looks_like_tests(object: &Map<String, Value>) -> bool {
    let operator =
        |name: &String| COMPARISONS.iter().any(|operator| operator.get(1..) == Some(name.as_str()));
    !object.is_empty() && object.keys().all(operator)
}

/// What to say of a key that begins with `$` and is none that belongs there; `place` is where the dict is that has it, or,
/// for what stands in place of a field, the key itself.
fn unknown_operator(key: &str, value: &Value, place: &Place<'_>) -> Error {
    if let Place::Key(outer, here) = place
        && *here == key
    {
        let error =
            wrong(outer, format!("has {key:?}, which is neither an operator nor something of a record"));
        if COMPARISONS.contains(&key) {
            return error.suggest(format!(
                "an operator stands below the name of a field: {{\"year\": {{{key:?}: ...}}}}"
            ));
        }
        let known: Vec<&str> = LOGICAL.into_iter().chain(SPECIAL).collect();
        return error.suggest(match nearest(key, &known) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("for a field that is named so, write \"\\\\{key}\""),
        });
    }
    if !key.starts_with('$') {
        return wrong(place, format!("must have operators only, got {key:?}"))
            .suggest("write {\"$eq\": ...} to compare with the dict itself");
    }
    let error = wrong(place, format!("has {key:?}, which is not an operator"));
    match nearest(key, &COMPARISONS) {
        Some(name) => error.suggest(format!("did you mean {name}?")),
        None if super::is_scalar(value) => {
            error.suggest(format!("there are {}; $eq compares with the dict itself", COMPARISONS.join(", ")))
        }
        None => error.suggest(format!("there are {}", COMPARISONS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::filters;
    use super::*;

    fn read(dict: &Value) -> String {
        Filter::from_dict(dict).map_or_else(|error| error.to_string(), |filter| filter.to_string())
    }

    #[test]
    fn every_form_is_read() {
        for (dict, expected) in [
            (json!({}), "ALL"),
            (json!({"a": 1}), "a = 1"),
            (json!({"a": null, "b": "x"}), "a = null AND b = \"x\""),
            (json!({"a": {"$gte": 1, "$lt": 5}, "b": true}), "a >= 1 AND a < 5 AND b = true"),
            (json!({"$or": [{"a": 1}, {"b": 2, "c": 3}]}), "a = 1 OR b = 2 AND c = 3"),
            (json!({"$nor": [{"a": 1}, {"b": 2}]}), "NOT (a = 1 OR b = 2)"),
            (json!({"$not": {"a": 1}}), "NOT a = 1"),
            (json!({"$and": [{"a": 1}]}), "a = 1"),
            (json!({"$and": []}), "ALL"),
            (json!({"$or": []}), "NOT ALL"),
            (json!({"a": {"$not": {"$gt": 1, "$lt": 5}}}), "NOT (a > 1 AND a < 5)"),
            (json!({"a": {"$exists": true}, "b": {"$exists": false}}), "a EXISTS AND NOT b EXISTS"),
            (json!({"a": {"$in": [1, "x"]}, "b": {"$nin": []}}), "a IN [1, \"x\"] AND b NOT IN []"),
            (json!({"a.b": {"$contains": "x"}}), "a.b CONTAINS \"x\""),
            (json!({"a\\.b": {"$startswith": "x"}}), "\"a.b\" STARTSWITH \"x\""),
            (json!({"$key": {"$endswith": "x"}}), "$key ENDSWITH \"x\""),
            (json!({"a": {"b": [1]}}), "a = {\"b\":[1]}"),
            (json!({"a": [1, 2]}), "a = [1,2]"),
            (json!({"a": {"$gt": {MARK: "day 1"}}}), "a > {\"$limnion\":\"day 1\"}"),
            (json!({"a": {MARK: "day 1"}}), "a = {\"$limnion\":\"day 1\"}"),
            (json!({"a": {MARK: "set", "value": [1]}}), "a = {\"$limnion\":\"set\",\"value\":[1]}"),
            (json!({"a": {"$eq": {"gte": 1}}}), "a = {\"gte\":1}"),
        ] {
            assert_eq!(read(&dict), expected, "{dict}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (dict, expected) in [
            (json!(3), "filter must be a dict of conditions, got 3"),
            (json!([]), "filter must be a dict of conditions, got a list"),
            (json!({"$or": {"a": 1}}), "filter[\"$or\"] must be a list of filters, got a dict with \"a\""),
            (json!({"$or": [{"a": 1}, 7]}), "filter[\"$or\"][1] must be a dict of conditions, got 7"),
            (
                json!({"$orr": []}),
                "filter has \"$orr\", which is neither an operator nor something of a record; did you mean $or?",
            ),
            (
                json!({"$gte": 3}),
                "filter has \"$gte\", which is neither an operator nor something of a record; an operator stands below the name of a field: {\"year\": {\"$gte\": ...}}",
            ),
            (
                json!({"year": {"$gtee": 3}}),
                "filter[\"year\"] has \"$gtee\", which is not an operator; did you mean $gte?",
            ),
            (
                json!({"$and": [{"year": {"gte": 3}}]}),
                "filter[\"$and\"][0][\"year\"] has operators without $, got a dict with \"gte\"; write $gte, or {\"$eq\": ...} to compare with the dict itself",
            ),
            (
                json!({"year": {"$gte": 3, "x": 4}}),
                "filter[\"year\"] must have operators only, got \"x\"; write {\"$eq\": ...} to compare with the dict itself",
            ),
            (
                json!({"year": {"$gt": [3]}}),
                "filter[\"year\"][\"$gt\"] must be a number, a string, a bool or null, got a list; lists and dicts have no order",
            ),
            (
                json!({"tags": {"$in": "x"}}),
                "filter[\"tags\"][\"$in\"] must be a list of values, got \"x\"; to ask whether an array has a member, write $contains",
            ),
            (json!({"a": {"$exists": 1}}), "filter[\"a\"][\"$exists\"] must be true or false, got 1"),
            (json!({"a": {"$startswith": 1}}), "filter[\"a\"][\"$startswith\"] must be a string, got 1"),
            (
                json!({"a": {"$not": 1}}),
                "filter[\"a\"][\"$not\"] must be a dict of operators, got 1; write {\"$ne\": ...} for a field that has another value",
            ),
            (json!({"a..b": 1}), "filter: field \"a..b\" must have a name before and after each dot"),
        ] {
            let error = Filter::from_dict(&dict).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.kind(), ErrorKind::Validation);
        }
    }

    #[test]
    fn a_hostile_dict_is_refused() {
        let nested =
            |times: usize, wrap: fn(Value) -> Value, inner: Value| (0..times).fold(inner, |v, _| wrap(v));
        // `json!` would copy what is inside, and overflow the stack itself.
        let object = |key: &str, v: Value| Value::Object(Map::from_iter([(key.to_owned(), v)]));
        let not: fn(Value) -> Value = |v| Value::Object(Map::from_iter([("$not".to_owned(), v)]));
        let and: fn(Value) -> Value =
            |v| Value::Object(Map::from_iter([("$and".to_owned(), Value::Array(vec![v, json!({})]))]));
        let list: fn(Value) -> Value = |v| Value::Array(vec![v]);
        assert!(Filter::from_dict(&nested(MAX_DEPTH - 1, not, json!({"a": 1}))).is_ok());
        assert!(Filter::from_dict(&nested(MAX_DEPTH - 1, and, json!({"a": 1}))).is_ok());
        for dict in [
            nested(MAX_DEPTH, not, json!({"a": 1})),
            nested(MAX_DEPTH, and, json!({"a": 1})),
            nested(2000, not, json!({"a": 1})),
            nested(2000, and, json!({"a": 1})),
            object("a", nested(2000, not, json!({"$gt": 1}))),
        ] {
            let error = Filter::from_dict(&dict).unwrap_err().to_string();
            assert_eq!(error, "filter must be nested at most 64 deep");
        }
        assert!(Filter::from_dict(&object("a", nested(MAX_OPERAND_DEPTH - 1, list, json!(1)))).is_ok());
        assert!(Filter::from_dict(&object("a", nested(MAX_OPERAND_DEPTH, list, json!(1)))).is_err());
        assert!(Filter::from_dict(&object("a", nested(2000, list, json!(1)))).is_err());
        let many = json!({"a": {"$in": vec![1; MAX_NODES]}});
        assert_eq!(
            Filter::from_dict(&many).unwrap_err().to_string(),
            "filter must have at most 100000 conditions and operands"
        );
    }

    proptest! {
        #[test]
        fn the_dict_form_reads_back(filter in filters()) {
            prop_assert_eq!(Filter::from_dict(&filter.to_dict()).unwrap(), filter);
        }
    }
}
