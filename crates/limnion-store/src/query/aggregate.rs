//! Sums, means and extremes, per group or over all.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use limnion_types::filter::{Fields, Filter, Path, is_scalar, total_order};
use limnion_types::{Job, Result};
use serde_json::{Number, Value};

use super::fields::Wanted;
use super::{Aggregate, Function, Group};
use crate::model::Record;

/// Aggregates over the records that match: one group where `group_by` names no field, else one for each value of it, in
/// order. Records without that field are in the group of null.
///
/// Sums and means are over numbers, and extremes over scalars that are not null; what is anything else is left out. A
/// sum of integers is exact, and an integer where it has at most 64 bits. What is beyond every float is the greatest one.
pub fn aggregate(
    records: impl Iterator<Item = Result<Record>>,
    filter: &Filter,
    group_by: Option<&str>,
    aggregates: &[Aggregate],
    job: &Job,
) -> Result<Vec<Group>> {
    let group_by =
        group_by.map(|field| Path::parse(field).map_err(|error| error.within("group_by"))).transpose()?;
    let fields =
        aggregates.iter().map(|one| Path::parse(&one.field).map_err(|error| error.within("aggregates")));
    let fields: Vec<Path> = fields.collect::<Result<_>>()?;
    let wanted = Wanted::new(filter.paths().into_iter().chain(&fields).chain(&group_by).cloned());
    let empty =
        || Partial { count: 0, states: aggregates.iter().map(|one| State::new(one.function)).collect() };
    let mut groups: BTreeMap<Ordered, Partial> = BTreeMap::new();
    if group_by.is_none() {
        groups.insert(Ordered(Value::Null), empty());
    }
    for record in records {
        job.check()?;
        job.advance(1);
        let record = record?;
        let row = wanted.of(&record)?;
        if !filter.matches(&row) {
            continue;
        }
        let key =
            group_by.as_ref().and_then(|path| row.field(path)).map_or(Value::Null, |key| key.into_owned());
        let group = groups.entry(Ordered(key)).or_insert_with(empty);
        group.count += 1;
        for (state, path) in group.states.iter_mut().zip(&fields) {
            if let Some(value) = row.field(path) {
                state.take(&value);
            }
        }
    }
    let groups = groups.into_iter().map(|(key, group)| Group {
        key: key.0,
        count: group.count,
        values: group.states.into_iter().map(State::result).collect(),
    });
    Ok(groups.collect())
}

/// A group on the way.
struct Partial {
    count: usize,
    states: Vec<State>,
}

/// A value in the order of all values.
struct Ordered(Value);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        total_order(&self.0, &other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

/// An aggregate on the way.
enum State {
    Sum(Numbers),
    Avg(Numbers),
    Min(Option<Value>),
    Max(Option<Value>),
}

impl State {
    fn new(function: Function) -> Self {
        match function {
            Function::Sum => State::Sum(Numbers::default()),
            Function::Avg => State::Avg(Numbers::default()),
            Function::Min => State::Min(None),
            Function::Max => State::Max(None),
        }
    }

    fn take(&mut self, value: &Value) {
        let (best, wanted) = match self {
            State::Sum(numbers) | State::Avg(numbers) => {
                if let Value::Number(number) = value {
                    numbers.add(number);
                }
                return;
            }
            State::Min(best) => (best, Ordering::Less),
            State::Max(best) => (best, Ordering::Greater),
        };
        let counts = is_scalar(value) && !value.is_null();
        if counts && best.as_ref().is_none_or(|best| total_order(value, best) == wanted) {
            *best = Some(value.clone());
        }
    }

    fn result(self) -> Value {
        match self {
            State::Sum(numbers) => numbers.sum(),
            State::Avg(numbers) => numbers.mean(),
            State::Min(best) | State::Max(best) => best.unwrap_or_default(),
        }
    }
}

/// A sum of integers and floats.
#[derive(Default)]
struct Numbers {
    count: u64,
    /// Of the integers: there is room for 2^63 of them.
    whole: i128,
    floats: Option<Sum>,
}

/// A sum of floats as if in twice the precision (Neumaier), and once more in small, for where it is beyond all floats on
/// the way.
#[derive(Default, Clone, Copy)]
struct Sum {
    sum: f64,
    lost: f64,
    small: f64,
}

/// 2^-64.
const SMALL: f64 = 1.0 / 18_446_744_073_709_551_616.0;

impl Sum {
    fn add(&mut self, number: f64) {
        let sum = self.sum + number;
        self.lost +=
            if self.sum.abs() >= number.abs() { self.sum - sum + number } else { number - sum + self.sum };
        self.sum = sum;
        self.small += number * SMALL;
    }

    /// The sum divided by `count`.
    fn over(self, count: f64) -> f64 {
        let exact = (self.sum + self.lost) / count;
        if exact.is_finite() { exact } else { (self.small / count / SMALL).clamp(f64::MIN, f64::MAX) }
    }
}

impl Numbers {
    fn add(&mut self, number: &Number) {
        self.count += 1;
        match number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)) {
            Some(whole) => self.whole = self.whole.saturating_add(whole),
            None => self.floats.get_or_insert_default().add(number.as_f64().unwrap_or_default()),
        }
    }

    /// All as floats, in two steps: an integer of more than 53 bits is two floats.
    fn all(&self) -> Option<Sum> {
        let mut sum = self.floats?;
        let rounded = self.whole as f64;
        sum.add(rounded);
        sum.add((self.whole - rounded as i128) as f64);
        Some(sum)
    }

    fn sum(&self) -> Value {
        match self.all() {
            _ if self.count == 0 => Value::Null,
            Some(sum) => Value::from(sum.over(1.0)),
            None => {
                Number::from_i128(self.whole).map_or_else(|| Value::from(self.whole as f64), Value::Number)
            }
        }
    }

    fn mean(&self) -> Value {
        match self.all() {
            _ if self.count == 0 => Value::Null,
            Some(sum) => Value::from(sum.over(self.count as f64)),
            None => {
                let count = i128::from(self.count);
                let (whole, rest) = (self.whole / count, self.whole % count);
                Value::from(whole as f64 + rest as f64 / self.count as f64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{record, values};
    use super::*;

    const ALL: [Function; 4] = [Function::Sum, Function::Avg, Function::Min, Function::Max];

    fn run(values: &[Value], group_by: Option<&str>) -> Vec<Group> {
        let aggregates = ALL.map(|function| Aggregate { function, field: "n".to_owned() });
        let records = values.iter().enumerate();
        let records = records.map(|(at, value)| Ok(record(&format!("{at:03}"), &value.to_string(), None)));
        aggregate(records, &Filter::All, group_by, &aggregates, &Job::new()).unwrap()
    }

    fn of(numbers: &[Value]) -> Vec<Value> {
        let values: Vec<Value> = numbers.iter().map(|number| json!({ "n": number })).collect();
        run(&values, None).remove(0).values
    }

    #[test]
    fn integers_are_summed_exactly() {
        assert_eq!(
            of(&[json!(i64::MAX), json!(1), json!(-1)]),
            [json!(i64::MAX), json!(i64::MAX as f64 / 3.0), json!(-1), json!(i64::MAX)]
        );
        assert_eq!(
            of(&[json!(u64::MAX), json!(u64::MAX)])[..2],
            [json!(36893488147419103230.0), json!(1.8446744073709552e19)]
        );
        assert_eq!(of(&[json!(u64::MAX), json!(i64::MIN), json!(i64::MIN)])[0], json!(-1));
        assert_eq!(of(&[json!(1), json!(2)])[..2], [json!(3), json!(1.5)]);
    }

    #[test]
    fn floats_are_summed_with_care() {
        let mut tenths = vec![json!(0.1); 10];
        assert_eq!(of(&tenths)[..2], [json!(1.0), json!(0.1)]);
        tenths.push(json!(1e100));
        tenths.push(json!(-1e100));
        assert_eq!(of(&tenths)[0], json!(1.0));
        assert_eq!(
            of(&[json!(9007199254740993_u64), json!(0.0), json!(-9007199254740992_i64)])[0],
            json!(1.0)
        );
        // Neither infinity nor NaN, whatever the way there.
        assert_eq!(of(&[json!(1.5e308), json!(1.5e308)])[..2], [json!(f64::MAX), json!(1.5e308)]);
        assert_eq!(of(&[json!(1.5e308), json!(1.5e308), json!(-1.5e308), json!(-1.5e308)])[0], json!(0.0));
    }

    #[test]
    fn only_what_can_be_put_together_counts() {
        let mixed = [json!(true), json!(null), json!("b"), json!([9]), json!({"x": 1}), json!(2), json!("a")];
        assert_eq!(of(&mixed), [json!(2), json!(2.0), json!(true), json!("b")]);
        assert_eq!(of(&[json!(null), json!([1])]), vec![Value::Null; 4]);
        let dates = ["date 2021", "date 2020"].map(|word| json!({ "$limnion": word }));
        assert_eq!(of(&dates)[2..], [dates[1].clone(), dates[0].clone()]);
        // Without records there is still the group of all.
        assert_eq!(run(&[], None), [Group { key: Value::Null, count: 0, values: vec![Value::Null; 4] }]);
        assert_eq!(run(&[], Some("g")), []);
    }

    #[test]
    fn groups_are_in_order_and_equal_keys_are_one() {
        let values = [
            json!({"g": "b", "n": 1}),
            json!({"g": 1, "n": 2}),
            json!({"n": 3}),
            json!({"g": 1.0, "n": 4}),
            json!({"g": null, "n": 5}),
            json!({"g": true}),
            json!({"g": [1], "n": 6}),
            json!({"g": [1.0], "n": 7}),
        ];
        let found: Vec<(Value, usize, Value)> = run(&values, Some("g"))
            .into_iter()
            .map(|group| (group.key, group.count, group.values[0].clone()))
            .collect();
        assert_eq!(
            found,
            [
                (json!(null), 2, json!(8)),
                (json!(true), 1, json!(null)),
                (json!(1), 2, json!(6)),
                (json!("b"), 1, json!(1)),
                (json!([1]), 2, json!(13)),
            ]
        );
    }

    #[test]
    fn fields_that_cannot_be_are_told() {
        let none = std::iter::empty;
        let error = aggregate(none(), &Filter::All, Some(""), &[], &Job::new()).unwrap_err();
        assert_eq!(error.to_string(), "group_by: field \"\" must have a name before and after each dot");
        let wrong = [Aggregate { function: Function::Sum, field: "a.".to_owned() }];
        let error = aggregate(none(), &Filter::All, None, &wrong, &Job::new()).unwrap_err();
        assert_eq!(error.to_string(), "aggregates: field \"a.\" must have a name before and after each dot");
    }

    proptest! {
        #[test]
        fn groups_are_those_of_a_plain_loop(rows in proptest::collection::vec((proptest::option::of(0i64..3), values()), 0..30)) {
            let records: Vec<Value> = rows
                .iter()
                .map(|(group, n)| group.map_or(json!({ "n": n }), |group| json!({"g": group, "n": n})))
                .collect();
            let mut seen = 0;
            let found = run(&records, Some("g"));
            prop_assert!(found.is_sorted_by(|a, b| total_order(&a.key, &b.key).is_lt()));
            for group in found {
                let inside: Vec<&Value> = rows
                    .iter()
                    .filter(|(key, _)| key.map_or(Value::Null, Value::from) == group.key)
                    .map(|(_, n)| n)
                    .collect();
                prop_assert_eq!(group.count, inside.len());
                seen += inside.len();
                let mut scalars: Vec<&Value> =
                    inside.iter().copied().filter(|n| is_scalar(n) && !n.is_null()).collect();
                scalars.sort_by(|a, b| total_order(a, b));
                let is = |found: &Value, expected: Option<&&Value>| {
                    expected.map_or(found.is_null(), |expected| total_order(found, expected).is_eq())
                };
                prop_assert!(is(&group.values[2], scalars.first()) && is(&group.values[3], scalars.last()));
                let numbers: Vec<f64> = inside.iter().filter_map(|n| n.as_f64()).collect();
                let (sum, size): (f64, f64) = (numbers.iter().sum(), numbers.iter().map(|n| n.abs()).sum());
                match group.values[0].as_f64() {
                    None => prop_assert!(numbers.is_empty() && group.values[1].is_null()),
                    Some(found) if size.is_finite() => {
                        prop_assert!((found - sum).abs() <= size * 1e-12, "{} {}", found, sum);
                        let mean = group.values[1].as_f64().unwrap();
                        prop_assert!((mean - sum / numbers.len() as f64).abs() <= size * 1e-12);
                    }
                    Some(found) => prop_assert!(found.is_finite()),
                }
            }
            prop_assert_eq!(seen, rows.len());
        }

        #[test]
        fn integers_sum_as_in_128_bits(numbers in proptest::collection::vec(any::<i64>(), 1..20)) {
            let values: Vec<Value> = numbers.iter().map(|&n| n.into()).collect();
            let exact: i128 = numbers.iter().map(|&n| i128::from(n)).sum();
            let expected = Number::from_i128(exact).map_or(json!(exact as f64), Value::Number);
            prop_assert_eq!(of(&values)[0].clone(), expected);
        }
    }
}
