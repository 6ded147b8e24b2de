//! What an index over a field can know of a filter.

use serde_json::Value;

use super::{Filter, Path, Test};

/// Where the value of a field must lie, for a filter to hold at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound<'a> {
    /// The field.
    pub path: &'a Path,
    /// Where its value must lie.
    pub reach: Reach<'a>,
}

/// A set of values, perhaps wider than the condition it came from.
#[derive(Debug, Clone, PartialEq)]
pub enum Reach<'a> {
    /// It equals one of these.
    OneOf(Vec<&'a Value>),
    /// It is of this one's type, and not less.
    AtLeast(&'a Value),
    /// It is of this one's type, and not greater.
    AtMost(&'a Value),
    /// It is a string that begins like this.
    Prefix(&'a str),
}

impl Filter {
    /// What must hold of single fields wherever the filter holds: records outside of any of these bounds do not match. The
    /// reverse is not true.
    pub fn bounds(&self) -> Vec<Bound<'_>> {
        let mut bounds = Vec::new();
        self.collect_bounds(&mut bounds);
        bounds
    }

    fn collect_bounds<'a>(&'a self, bounds: &mut Vec<Bound<'a>>) {
        match self {
            Filter::And(filters) => filters.iter().for_each(|filter| filter.collect_bounds(bounds)),
            Filter::Field(path, test) => {
                let reach = match test {
                    Test::Eq(value) => Reach::OneOf(vec![value]),
                    Test::In(members) => Reach::OneOf(members.values().iter().collect()),
                    Test::Gt(value) | Test::Gte(value) => Reach::AtLeast(value),
                    Test::Lt(value) | Test::Lte(value) => Reach::AtMost(value),
                    Test::StartsWith(start) => Reach::Prefix(start),
                    Test::Exists | Test::Ne(_) | Test::Nin(_) | Test::Contains(_) | Test::EndsWith(_) => {
                        return;
                    }
                };
                bounds.push(Bound { path, reach });
            }
            // One alternative may hold without the others, and what is negated bounds nothing.
            Filter::All | Filter::Or(_) | Filter::Not(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_must_hold_is_a_bound() {
        let filter = Filter::from_text(
            "a = 1 AND (b > 2 AND c IN [3, 4]) AND d STARTSWITH 'x' AND (e = 5 OR f = 6) AND NOT g = 7 AND h != 8",
        )
        .unwrap();
        let (one, two, three, four) = (json!(1), json!(2), json!(3), json!(4));
        let expected = [
            ("a", Reach::OneOf(vec![&one])),
            ("b", Reach::AtLeast(&two)),
            ("c", Reach::OneOf(vec![&three, &four])),
            ("d", Reach::Prefix("x")),
        ];
        let bounds = filter.bounds();
        let found: Vec<_> = bounds.iter().map(|b| (b.path.as_str(), b.reach.clone())).collect();
        assert_eq!(found, expected);
    }
}
