//! Where a field lies in a record.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::MAX_OPERAND_DEPTH;
use super::names::{SPECIAL, nearest};
use crate::{Error, ErrorKind, Result};

/// The dotted path of a field: `a.b.0`, with `\.` for a dot in a name, or `$key` and its like. See the
/// [module](super#paths).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// As it is written; the same for equal paths.
    text: String,
    names: Vec<String>,
    special: bool,
}

impl Path {
    /// A path that is written out.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Validation, format!("field {text:?} {message}"));
        if text.starts_with('$') {
            if SPECIAL.contains(&text) {
                return Ok(Self { text: text.to_owned(), names: vec![text.to_owned()], special: true });
            }
            let error = wrong(format!("is not one of {}", SPECIAL.join(", ")));
            return Err(match nearest(text, &SPECIAL) {
                Some(name) => error.suggest(format!("did you mean {name}?")),
                None => error.suggest(format!("for a field that is named so, write \"\\{text}\"")),
            });
        }
        let mut names = vec![String::new()];
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match (char, names.last_mut()) {
                ('.', _) => names.push(String::new()),
                ('\\', Some(name)) => match chars.next() {
                    Some(escaped @ ('.' | '\\' | '$')) => name.push(escaped),
                    _ => {
                        return Err(wrong("has a single backslash".into()).suggest(
                            "write \\\\ for a backslash, and \\. for a dot that is part of a name",
                        ));
                    }
                },
                (_, Some(name)) => name.push(char),
                (_, None) => {}
            }
        }
        Self::of(names).map_err(|error| wrong(error.message().to_owned()))
    }

    /// A path of these names, whatever characters they have.
    pub fn of(names: Vec<String>) -> Result<Self> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Validation, message));
        if names.is_empty() || names.iter().any(String::is_empty) {
            return wrong("must have a name before and after each dot".into());
        }
        if names.len() > MAX_OPERAND_DEPTH {
            return wrong(format!("must have at most {MAX_OPERAND_DEPTH} names, got {}", names.len()));
        }
        let escape = |name: &String| name.replace('\\', "\\\\").replace('.', "\\.");
        let mut text = names.iter().map(escape).collect::<Vec<_>>().join(".");
        if text.starts_with('$') {
            text.insert(0, '\\');
        }
        Ok(Self { text, names, special: false })
    }

    /// As it is written in a dict.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names from the outermost to the innermost.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it is not a field of the record, but something of the record itself, such as `$key`.
    pub fn is_special(&self) -> bool {
        self.special
    }

    /// The position in an array that a name stands for: digits, without zeros before them.
    pub fn position(name: &str) -> Option<usize> {
        let plain =
            name.bytes().all(|byte| byte.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
        if plain { name.parse().ok() } else { None }
    }

    /// What lies there in a value.
    pub fn find_in<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        if self.special { None } else { descend(value, &self.names) }
    }
}

/// Goes from an object or array inwards. An element of an array is named by its position.
pub(super) fn descend<'a>(value: &'a Value, names: &[String]) -> Option<&'a Value> {
    names.iter().try_fold(value, |value, name| match value {
        Value::Object(object) => object.get(name),
        Value::Array(items) => items.get(Path::position(name)?),
        _ => None,
    })
}

impl FromStr for Path {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_through_objects_and_arrays() {
        let record = json!({"a": {"b": [10, {"c": 1}], "0": "zero"}, "x.y": 2, "$key": 3, "w\\": 4});
        for (path, expected) in [
            ("a.b.0", Some(json!(10))),
            ("a.b.1.c", Some(json!(1))),
            ("a.0", Some(json!("zero"))),
            ("a.b.2", None),
            ("a.b.00", None),
            ("a.b.+1", None),
            ("a.b.c", None),
            ("x.y", None),
            ("x\\.y", Some(json!(2))),
            ("\\$key", Some(json!(3))),
            ("$key", None),
            ("w\\\\", Some(json!(4))),
        ] {
            assert_eq!(Path::parse(path).unwrap().find_in(&record).cloned(), expected, "{path}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_says_why() {
        for (path, message) in [
            ("", "field \"\" must have a name before and after each dot"),
            ("a..b", "field \"a..b\" must have a name before and after each dot"),
            ("a.", "field \"a.\" must have a name before and after each dot"),
            (
                "a\\b",
                "field \"a\\\\b\" has a single backslash; write \\\\ for a backslash, and \\. for a dot that is part of a name",
            ),
            ("$kye", "field \"$kye\" is not one of $key, $namespace, $version; did you mean $key?"),
            (
                "$price",
                "field \"$price\" is not one of $key, $namespace, $version; for a field that is named so, write \"\\$price\"",
            ),
        ] {
            assert_eq!(Path::parse(path).unwrap_err().to_string(), message);
        }
        assert!(Path::parse(&["a"; 33].join(".")).is_err());
    }

    proptest! {
        #[test]
        fn any_names_make_a_path_that_reads_back(names in proptest::collection::vec(r#"[a-z.\\$ "]{1,4}"#, 1..4)) {
            let path = Path::of(names.clone()).unwrap();
            let again = Path::parse(path.as_str()).unwrap();
            prop_assert_eq!(&again, &path);
            prop_assert_eq!(again.names(), &names[..]);
        }
    }
}
