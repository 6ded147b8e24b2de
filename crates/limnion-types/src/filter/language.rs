//! The text form: `year >= 2020 AND (tags CONTAINS 'news' OR NOT author.name IN ['x', "y"])`.
//!
//! `NOT` binds tighter than `AND`, and `AND` tighter than `OR`. Keywords are read in any case, and are names of fields only
//! in quotes. Operands are JSON, strings also in single quotes.

use std::fmt;

use serde_json::{Map, Number, Value};

use super::names::{KEYWORDS, Operand, nearest, words};
use super::{Filter, MAX_DEPTH, MAX_NODES, MAX_OPERAND_DEPTH, Members, Path, Test, is_scalar};
use crate::{Error, ErrorKind, Result};

impl Filter {
    /// Reads the text form. An error of kind validation says at which character it is wrong, and what was expected.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut reader = Reader { text, at: 0, depth: 0, nodes: 0 };
        if reader.rest().is_empty() {
            return Ok(Filter::All);
        }
        let filter = reader.alternatives()?;
        if !reader.rest().is_empty() {
            return Err(reader.expected_end());
        }
        if filter.depth() > MAX_DEPTH {
            return Err(reader.too_deep());
        }
        Ok(filter)
    }
}

/// The text form, which reads back as the same filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, filters: &[Filter], word: &str| {
            filters.iter().enumerate().try_for_each(|(at, filter)| {
                if at > 0 {
                    write!(f, " {word} ")?;
                }
                let bare = match filter {
                    Filter::And(filters) => word == "OR" && filters.len() > 1,
                    Filter::Or(_) => false,
                    _ => true,
                };
                if bare { write!(f, "{filter}") } else { write!(f, "({filter})") }
            })
        };
        match self {
            Filter::All => f.write_str("ALL"),
            Filter::And(filters) if filters.is_empty() => f.write_str("ALL"),
            Filter::Or(filters) if filters.is_empty() => f.write_str("NOT ALL"),
            Filter::And(filters) => joined(f, filters, "AND"),
            Filter::Or(filters) => joined(f, filters, "OR"),
            Filter::Not(filter) => match **filter {
                Filter::And(_) | Filter::Or(_) => write!(f, "NOT ({filter})"),
                _ => write!(f, "NOT {filter}"),
            },
            Filter::Field(path, test) => {
                show_path(f, path)?;
                let (_, operator, operand) = words(test);
                write!(f, " {operator}")?;
                match operand {
                    Operand::None => Ok(()),
                    Operand::Value(value) => write!(f, " {value}"),
                    Operand::Text(text) => write!(f, " {}", Value::from(text)),
                    Operand::List(members) => {
                        let members: Vec<String> = members.values().iter().map(Value::to_string).collect();
                        write!(f, " [{}]", members.join(", "))
                    }
                }
            }
        }
    }
}

fn show_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    for (at, name) in path.names().iter().enumerate() {
        let dot = if at > 0 { "." } else { "" };
        let bare = path.is_special() || is_bare(name, at == 0);
        if bare { write!(f, "{dot}{name}")? } else { write!(f, "{dot}{}", Value::from(name.as_str()))? }
    }
    Ok(())
}

/// Whether a name needs no quotes.
fn is_bare(name: &str, first: bool) -> bool {
    let begins = name
        .chars()
        .next()
        .is_some_and(|c| c == '_' || c.is_alphabetic() || !first && in_word(c) && c != '$');
    begins && name.chars().all(|c| in_word(c) && c != '$') && !(first && is_keyword(name))
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// Whether a character belongs to a bare name.
fn in_word(char: char) -> bool {
    char == '_' || char == '-' || char == '$' || char.is_alphanumeric()
}

/// What people write who know another language, and what they mean.
const OTHERS: [(&str, &str); 16] = [
    ("&&", "write AND"),
    ("&", "write AND"),
    ("||", "write OR"),
    ("|", "write OR"),
    ("!", "write NOT"),
    ("===", "write ="),
    ("!==", "write !="),
    ("=>", "write >="),
    ("=<", "write <="),
    ("=!", "write !="),
    ("~", "write CONTAINS for a part of a string"),
    ("=~", "write CONTAINS for a part of a string"),
    ("LIKE", "write CONTAINS, STARTSWITH or ENDSWITH"),
    ("IS", "write = null, or NOT ... EXISTS for a field that is not there"),
    ("BETWEEN", "write a >= 1 AND a <= 2"),
    ("HAS", "write CONTAINS"),
];

const OPERATORS: &str =
    "an operator (=, !=, >, >=, <, <=, IN, NOT IN, CONTAINS, STARTSWITH, ENDSWITH, EXISTS)";

struct Reader<'a> {
    text: &'a str,
    /// In bytes; always between two characters.
    at: usize,
    depth: usize,
    nodes: usize,
}

impl<'a> Reader<'a> {
    /// What is left, from the next thing on.
    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn next(&mut self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, token: char) -> bool {
        let here = self.next() == Some(token);
        if here {
            self.at += token.len_utf8();
        }
        here
    }

    /// The bare word that comes next; empty where there is none.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|char| !in_word(char)).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    fn is_next(&mut self, keyword: &str) -> bool {
        self.word().eq_ignore_ascii_case(keyword)
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let here = self.is_next(keyword);
        if here {
            self.at += keyword.len();
        }
        here
    }

    /// The word or run of signs that comes next, for messages.
    fn came(&mut self) -> String {
        let rest = self.rest();
        let end = match rest.chars().next() {
            None => return "the end".into(),
            Some(first) if in_word(first) => rest.find(|c| !in_word(c) && c != '.'),
            Some('\'' | '"') => rest.get(1..).and_then(|tail| tail.find(['\'', '"'])).map(|end| end + 2),
            Some(first) => Some(self.signs().len().max(first.len_utf8())),
        };
        let token = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
        match token.char_indices().nth(30) {
            Some((end, _)) => format!("{} ...", token.get(..end).unwrap_or_default()),
            None => token.to_owned(),
        }
    }

    /// The run of signs that comes next.
    fn signs(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|char| !"=<>!&|~^%*+?:#".contains(char)).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    fn error(&self, at: usize, message: impl fmt::Display) -> Error {
        let characters = self.text.get(..at).unwrap_or_default().chars().count();
        Error::new(ErrorKind::Validation, format!("filter, character {}: {message}", characters + 1))
    }

    fn expected(&mut self, what: &str) -> Error {
        let came = self.came();
        self.error(self.at, format!("expected {what}, got {came}"))
    }

    fn too_deep(&self) -> Error {
        Error::new(ErrorKind::Validation, format!("filter must be nested at most {MAX_DEPTH} deep"))
    }

    fn expected_end(&mut self) -> Error {
        let (word, signs) = (self.word(), self.signs());
        let error = self.expected("AND, OR or the end");
        let other = OTHERS.iter().find(|(other, _)| *other == signs);
        match (other, nearest(word, &["AND", "OR"])) {
            (Some((_, meaning)), _) => error.suggest(*meaning),
            (None, Some(keyword)) => error.suggest(format!("did you mean {keyword}?")),
            (None, None) => error,
        }
    }

    fn count(&mut self) -> Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error(self.at, format!("more than {MAX_NODES} conditions and operands")));
        }
        Ok(())
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn alternatives(&mut self) -> Result<Filter> {
        let mut filters = vec![self.conjunction()?];
        while self.keyword("OR") {
            filters.push(self.conjunction()?);
        }
        Ok(Filter::or(filters))
    }

    fn conjunction(&mut self) -> Result<Filter> {
        let mut filters = vec![self.negation()?];
        while self.keyword("AND") {
            filters.push(self.negation()?);
        }
        Ok(Filter::and(filters))
    }

    fn negation(&mut self) -> Result<Filter> {
        self.count()?;
        if self.keyword("NOT") {
            return Ok(Filter::negate(self.deeper(Self::negation)?));
        }
        if self.take('(') {
            let filter = self.deeper(Self::alternatives)?;
            if !self.take(')') {
                return Err(self.expected("AND, OR or )"));
            }
            return Ok(filter);
        }
        if self.keyword("ALL") {
            return Ok(Filter::All);
        }
        if self.keyword("EXISTS") {
            let bracketed = self.take('(');
            let path = self.path()?;
            if bracketed && !self.take(')') {
                return Err(self.expected(")"));
            }
            return Ok(Filter::Field(path, Test::Exists));
        }
        let path = self.path()?;
        self.test(path)
    }

    fn path(&mut self) -> Result<Path> {
        let word = self.word();
        let start = self.at;
        if is_keyword(word) {
            return Err(self
                .expected("a field, NOT or (")
                .suggest(format!("write \"{word}\" in quotes for a field that is named so")));
        }
        if let Some(rest) = word.strip_prefix('$') {
            self.at += word.len();
            let path = Path::parse(word).map_err(|error| {
                let told = self.error(start, error.message());
                match error.suggestion() {
                    Some(near) if near.starts_with("did") => told.suggest(near),
                    _ => told.suggest(format!("write \"${rest}\" in quotes for a field that is named so")),
                }
            });
            return path;
        }
        let mut names = Vec::new();
        loop {
            let word = self.word();
            match self.next() {
                Some(quote @ ('\'' | '"')) => names.push(self.string(quote)?),
                _ if !word.is_empty() && (!names.is_empty() || is_bare(word, true)) => {
                    names.push(word.to_owned());
                    self.at += word.len();
                }
                Some('!') if names.is_empty() => {
                    return Err(self.expected("a field, NOT or (").suggest("write NOT"));
                }
                _ if names.is_empty() => return Err(self.expected("a field, NOT or (")),
                _ => return Err(self.expected("a name after the dot")),
            }
            // A dot belongs to the path only where nothing stands between.
            if !self.text.get(self.at..).unwrap_or_default().starts_with('.') {
                break;
            }
            self.at += 1;
        }
        Path::of(names).map_err(|error| self.error(start, format!("a field {}", error.message())))
    }

    fn test(&mut self, path: Path) -> Result<Filter> {
        let start = self.at;
        let signs = self.signs();
        let (word, symbolic) = (self.word(), !signs.is_empty());
        if symbolic {
            self.at += signs.len();
            let test = match signs {
                "=" | "==" => Test::Eq(self.operand()?),
                "!=" | "<>" => Test::Ne(self.operand()?),
                ">" => Test::Gt(self.scalar()?),
                ">=" => Test::Gte(self.scalar()?),
                "<" => Test::Lt(self.scalar()?),
                "<=" => Test::Lte(self.scalar()?),
                _ => {
                    self.at = start;
                    return Err(self.unknown_operator(signs));
                }
            };
            return Ok(Filter::Field(path, test));
        }
        self.at = start;
        let negated = self.keyword("NOT");
        let test = if self.keyword("IN") {
            let members = self.list()?;
            if negated { Test::Nin(members) } else { Test::In(members) }
        } else if self.keyword("EXISTS") {
            let exists = Filter::Field(path, Test::Exists);
            return Ok(if negated { Filter::negate(exists) } else { exists });
        } else if negated {
            let error = self.expected("IN or EXISTS after NOT");
            let word = self.word().to_ascii_uppercase();
            let after = ["CONTAINS", "STARTSWITH", "ENDSWITH"].contains(&word.as_str());
            return Err(if after { error.suggest(format!("write NOT ... {word} ...")) } else { error });
        } else if self.keyword("CONTAINS") {
            Test::Contains(self.operand()?)
        } else if self.keyword("STARTSWITH") {
            Test::StartsWith(self.text_operand()?)
        } else if self.keyword("ENDSWITH") {
            Test::EndsWith(self.text_operand()?)
        } else {
            return Err(self.unknown_operator(word));
        };
        Ok(Filter::Field(path, test))
    }

    fn unknown_operator(&mut self, came: &str) -> Error {
        let error = self.expected(OPERATORS);
        if let Some((_, meaning)) = OTHERS.iter().find(|(other, _)| other.eq_ignore_ascii_case(came)) {
            return error.suggest(*meaning);
        }
        let near = nearest(came, &["IN", "NOT", "CONTAINS", "STARTSWITH", "ENDSWITH", "EXISTS"]);
        match near {
            Some(operator) => error.suggest(format!("did you mean {operator}?")),
            None => error,
        }
    }

    fn operand(&mut self) -> Result<Value> {
        self.value(1)
    }

    fn scalar(&mut self) -> Result<Value> {
        let start = {
            self.rest();
            self.at
        };
        let value = self.operand()?;
        if !is_scalar(&value) {
            return Err(self
                .error(start, "expected a number, a string, true, false or null")
                .suggest("lists and objects have no order"));
        }
        Ok(value)
    }

    fn text_operand(&mut self) -> Result<String> {
        match self.next() {
            Some(quote @ ('\'' | '"')) => self.string(quote),
            _ => Err(self.expected("a string in quotes")),
        }
    }

    fn list(&mut self) -> Result<Members> {
        if self.next() != Some('[') {
            let error = self.expected("[ and a list of values");
            return Err(match self.next() {
                Some('(') => error.suggest("write IN [1, 2]"),
                _ => error.suggest("to ask whether an array has a member, write field CONTAINS 'member'"),
            });
        }
        match self.value(0)? {
            Value::Array(values) => Ok(Members::new(values)),
            _ => Err(self.expected("a list of values")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        self.count()?;
        if depth > MAX_OPERAND_DEPTH {
            return Err(
                self.error(self.at, format!("operands must be nested at most {MAX_OPERAND_DEPTH} deep"))
            );
        }
        match self.next() {
            Some(quote @ ('\'' | '"')) => self.string(quote).map(Value::String),
            Some('-' | '0'..='9') => self.number(),
            Some('[') => {
                self.at += 1;
                let mut items = Vec::new();
                if !self.take(']') {
                    loop {
                        items.push(self.value(depth + 1)?);
                        if self.take(']') {
                            break;
                        }
                        if !self.take(',') {
                            return Err(self.expected(", or ]"));
                        }
                    }
                }
                Ok(Value::Array(items))
            }
            Some('{') => {
                self.at += 1;
                let mut object = Map::new();
                if !self.take('}') {
                    loop {
                        let name = self.text_operand()?;
                        if !self.take(':') {
                            return Err(self.expected(":"));
                        }
                        object.insert(name, self.value(depth + 1)?);
                        if self.take('}') {
                            break;
                        }
                        if !self.take(',') {
                            return Err(self.expected(", or }"));
                        }
                    }
                }
                Ok(Value::Object(object))
            }
            _ if self.keyword("TRUE") => Ok(Value::Bool(true)),
            _ if self.keyword("FALSE") => Ok(Value::Bool(false)),
            _ if self.keyword("NULL") => Ok(Value::Null),
            _ => {
                let word = self.word();
                let error =
                    self.expected("a string in quotes, a number, true, false, null, a list or an object");
                Err(match word {
                    "" => error,
                    "None" => error.suggest("write null"),
                    word => error.suggest(format!("write '{word}' in quotes for a string")),
                })
            }
        }
    }

    fn number(&mut self) -> Result<Value> {
        let rest = self.rest();
        let belongs = |char: char| char.is_alphanumeric() || matches!(char, '.' | '-' | '+' | '_');
        let token = rest.get(..rest.find(|c| !belongs(c)).unwrap_or(rest.len())).unwrap_or_default();
        let Ok(number) = serde_json::from_str::<Number>(token) else {
            let error = self.expected("a number");
            let finite = token.parse::<f64>().map_or(true, f64::is_finite);
            return Err(if finite {
                error.suggest("write dates, and all else that is no number, as a string in quotes")
            } else {
                error.suggest("numbers are at most 1.7976931348623157e308")
            });
        };
        self.at += token.len();
        Ok(Value::Number(number))
    }

    /// A string from its quote to the next one.
    fn string(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text.get(start..).unwrap_or_default().char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            if char == quote {
                self.at = start + at + char.len_utf8();
                return Ok(text);
            }
            if char != '\\' {
                text.push(char);
                continue;
            }
            let escaped = chars.next();
            let simple = match escaped.map(|(_, char)| char) {
                Some(same @ ('\\' | '\'' | '"' | '/')) => Some(same),
                Some('n') => Some('\n'),
                Some('t') => Some('\t'),
                Some('r') => Some('\r'),
                Some('b') => Some('\u{8}'),
                Some('f') => Some('\u{c}'),
                Some('u') => {
                    let mut unit = || -> Option<u32> {
                        let digits: String = chars.by_ref().take(4).map(|(_, char)| char).collect();
                        let plain = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                        if plain { u32::from_str_radix(&digits, 16).ok() } else { None }
                    };
                    match unit() {
                        // Two units make one character beyond U+FFFF.
                        Some(high @ 0xD800..=0xDBFF) => {
                            let follows = chars.next().map(|(_, c)| c) == Some('\\')
                                && chars.next().map(|(_, c)| c) == Some('u');
                            let low = if follows {
                                let digits: String = chars.by_ref().take(4).map(|(_, char)| char).collect();
                                u32::from_str_radix(&digits, 16).ok()
                            } else {
                                None
                            };
                            low.filter(|low| (0xDC00..0xE000).contains(low)).and_then(|low| {
                                char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
                            })
                        }
                        Some(unit) => char::from_u32(unit),
                        None => None,
                    }
                }
                _ => None,
            };
            let Some(char) = simple else {
                return Err(self
                    .error(start + at, "not an escape that strings have")
                    .suggest("write \\\\ for a backslash; there are \\\\ \\' \\\" \\n \\t \\r \\u0041"));
            };
            text.push(char);
        }
        Err(self.error(start, format!("the string has no {quote} at its end")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::filters;
    use super::*;

    fn read(text: &str) -> Value {
        Filter::from_text(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_dict()
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("", json!({})),
            ("  ALL ", json!({})),
            ("a = 1", json!({"a": {"$eq": 1}})),
            ("a==1", json!({"a": {"$eq": 1}})),
            ("a != 'x'", json!({"a": {"$ne": "x"}})),
            ("a <> \"x\"", json!({"a": {"$ne": "x"}})),
            ("a>-1.5e2", json!({"a": {"$gt": -150.0}})),
            ("a >= 2", json!({"a": {"$gte": 2}})),
            ("a < true", json!({"a": {"$lt": true}})),
            ("a <= NULL", json!({"a": {"$lte": null}})),
            ("a in [1, 'x', False]", json!({"a": {"$in": [1, "x", false]}})),
            ("a Not In []", json!({"a": {"$nin": []}})),
            ("a contains 'x'", json!({"a": {"$contains": "x"}})),
            ("a STARTSWITH 'x'", json!({"a": {"$startswith": "x"}})),
            ("a EndsWith 'x'", json!({"a": {"$endswith": "x"}})),
            ("a EXISTS", json!({"a": {"$exists": true}})),
            ("EXISTS a.b", json!({"a.b": {"$exists": true}})),
            ("EXISTS(a)", json!({"a": {"$exists": true}})),
            ("a NOT EXISTS", json!({"$not": {"a": {"$exists": true}}})),
            ("a = [1, {\"b\": null}]", json!({"a": {"$eq": [1, {"b": null}]}})),
            ("a.b-c.0._d = 1", json!({"a.b-c.0._d": {"$eq": 1}})),
            ("\"a.b\".'c \"d' = 1", json!({"a\\.b.c \"d": {"$eq": 1}})),
            ("'and' = 1", json!({"and": {"$eq": 1}})),
            ("a.and = 1", json!({"a.and": {"$eq": 1}})),
            ("$key STARTSWITH 'x'", json!({"$key": {"$startswith": "x"}})),
            ("'$key' = 1", json!({"\\$key": {"$eq": 1}})),
            ("größe = 'ß'", json!({"größe": {"$eq": "ß"}})),
            (r#"a = 'it\'s\n\u0041\uD83D\uDE00\\"'"#, json!({"a": {"$eq": "it's\nA😀\\\""}})),
            (
                "NOT a = 1 AND b = 2 OR c = 3",
                json!({"$or": [{"$and": [{"$not": {"a": {"$eq": 1}}}, {"b": {"$eq": 2}}]}, {"c": {"$eq": 3}}]}),
            ),
            (
                "not(a=1or b=2)and(c=3)",
                json!({"$and": [{"$not": {"$or": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}]}}, {"c": {"$eq": 3}}]}),
            ),
        ] {
            if text.contains("1or") {
                // A word that is stuck to a number is a slip, not a keyword.
                assert!(Filter::from_text(text).is_err());
                assert_eq!(read(&text.replace("1or", "1 or")), expected);
            } else {
                assert_eq!(read(text), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let values = "a string in quotes, a number, true, false, null, a list or an object";
        for (text, expected) in [
            ("year >= ", format!("filter, character 9: expected {values}, got the end")),
            ("year >= abc", format!("filter, character 9: expected {values}, got abc; write 'abc' in quotes for a string")),
            ("a = None", format!("filter, character 5: expected {values}, got None; write null")),
            ("year", format!("filter, character 5: expected {OPERATORS}, got the end")),
            ("é = 'é' adn b = 2", "filter, character 9: expected AND, OR or the end, got adn; did you mean AND?".into()),
            ("a = 1 && b = 2", "filter, character 7: expected AND, OR or the end, got &&; write AND".into()),
            ("a => 1", format!("filter, character 3: expected {OPERATORS}, got =>; write >=")),
            ("a contians 'x'", format!("filter, character 3: expected {OPERATORS}, got contians; did you mean CONTAINS?")),
            ("a LIKE 'x%'", format!("filter, character 3: expected {OPERATORS}, got LIKE; write CONTAINS, STARTSWITH or ENDSWITH")),
            ("a NOT CONTAINS 'x'", "filter, character 7: expected IN or EXISTS after NOT, got CONTAINS; write NOT ... CONTAINS ...".into()),
            ("'x' IN tags", "filter, character 8: expected [ and a list of values, got tags; to ask whether an array has a member, write field CONTAINS 'member'".into()),
            ("a IN (1)", "filter, character 6: expected [ and a list of values, got (; write IN [1, 2]".into()),
            ("a IN [1, 2", "filter, character 11: expected , or ], got the end".into()),
            ("(a = 1", "filter, character 7: expected AND, OR or ), got the end".into()),
            ("a = 1)", "filter, character 6: expected AND, OR or the end, got )".into()),
            ("a = 'x", "filter, character 5: the string has no ' at its end".into()),
            (r"a = 'C:\dir'", "filter, character 8: not an escape that strings have; write \\\\ for a backslash; there are \\\\ \\' \\\" \\n \\t \\r \\u0041".into()),
            ("day > 2020-01-01", "filter, character 7: expected a number, got 2020-01-01; write dates, and all else that is no number, as a string in quotes".into()),
            ("a > 1e999", "filter, character 5: expected a number, got 1e999; numbers are at most 1.7976931348623157e308".into()),
            ("a > [1]", "filter, character 5: expected a number, a string, true, false or null; lists and objects have no order".into()),
            ("AND = 1", "filter, character 1: expected a field, NOT or (, got AND; write \"AND\" in quotes for a field that is named so".into()),
            ("a = 1 AND", "filter, character 10: expected a field, NOT or (, got the end".into()),
            ("a. = 1", "filter, character 4: expected a name after the dot, got =".into()),
            ("!a = 1", "filter, character 1: expected a field, NOT or (, got !; write NOT".into()),
            ("1 = a", "filter, character 1: expected a field, NOT or (, got 1".into()),
            ("$kye = 'a'", "filter, character 1: field \"$kye\" is not one of $key, $namespace, $version; did you mean $key?".into()),
            ("a STARTSWITH 3", "filter, character 14: expected a string in quotes, got 3".into()),
        ] {
            let error = Filter::from_text(text).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
            assert_eq!(error.kind(), ErrorKind::Validation);
        }
    }

    #[test]
    fn a_hostile_text_is_refused() {
        let nested = |open: &str, times: usize, inner: &str, close: &str| {
            format!("{}{inner}{}", open.repeat(times), close.repeat(times))
        };
        assert!(Filter::from_text(&nested("(", MAX_DEPTH, "a=1", ")")).is_ok());
        for text in [
            nested("(", 1_000_000, "a=1", ")"),
            nested("NOT ", 1_000_000, "a=1", ""),
            nested("(", 1_000_000, "", ""),
            // Each pair of brackets holds an OR of an AND: two levels.
            nested("(a=1 OR b=2 AND ", MAX_DEPTH, "a=1", ")"),
        ] {
            assert_eq!(
                Filter::from_text(&text).unwrap_err().to_string(),
                "filter must be nested at most 64 deep"
            );
        }
        for text in [
            nested("a = [", 1, &nested("[", 1_000_000, "", ""), ""),
            nested("a={'b':", 1, &nested("{'b':", 99, "", ""), ""),
        ] {
            let error = Filter::from_text(&text).unwrap_err().to_string();
            assert!(error.contains("at most 32 deep"), "{error}");
        }
        let many = format!("a IN [{}1]", "1,".repeat(MAX_NODES));
        assert!(Filter::from_text(&many).unwrap_err().to_string().contains("more than 100000"));
    }

    proptest! {
        #[test]
        fn the_text_form_reads_back(filter in filters()) {
            let text = filter.to_string();
            prop_assert_eq!(Filter::from_text(&text).map_err(|e| e.to_string()), Ok(filter), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in r#"([a-z$.'"\\() =<>!0-9,\[\]{}:é-]|AND |OR |NOT |IN |EXISTS ){0,40}"#) {
            if let Ok(filter) = Filter::from_text(&text) {
                prop_assert_eq!(Filter::from_text(&filter.to_string()).unwrap(), filter);
            }
        }
    }
}
