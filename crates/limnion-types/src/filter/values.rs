//! How values compare.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::MARK;

/// Whether two values are equal: numbers by their exact value, arrays and objects as a whole.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => false,
    }
}

/// The order of two values of one type; `None` where they are of different types, or have no order.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => Some(compare_numbers(a, b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => match (tagged(a)?, tagged(b)?) {
            ((kind, a), (other, b)) if kind == other => Some(a.cmp(b)),
            _ => None,
        },
    }
}

/// An order over all values, in which equal ones are those that are [`equal`]: null, false, true, numbers, strings, what
/// stands for another type, arrays, objects. For sorting and grouping; a filter does not order values of
/// different types.
pub fn total_order(a: &Value, b: &Value) -> Ordering {
    rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| total_order(a, b)).find(|order| order.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(one), Value::Object(other)) => match (tagged(a), tagged(b)) {
            // A word begins with its kind, so this orders by kind first.
            (Some((_, a)), Some((_, b))) => a.cmp(b),
            _ => {
                let sorted = |object: &serde_json::Map<String, Value>| {
                    let mut names: Vec<String> = object.keys().cloned().collect();
                    names.sort_unstable();
                    names
                };
                let (names, others) = (sorted(one), sorted(other));
                names.cmp(&others).then_with(|| {
                    let values = names.iter().filter_map(|name| Some((one.get(name)?, other.get(name)?)));
                    values
                        .map(|(a, b)| total_order(a, b))
                        .find(|order| order.is_ne())
                        .unwrap_or(Ordering::Equal)
                })
            }
        },
        _ => compare(a, b).unwrap_or(Ordering::Equal),
    })
}

/// Whether a value has an order among its like: all but arrays and objects, and objects that stand for something else.
pub fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Array(_) => false,
        Value::Object(_) => tagged(value).is_some(),
        _ => true,
    }
}

/// What an object `{"$limnion": "date 2026-01-02"}` stands for: the kind of value, and the whole word, by which values of one
/// kind are ordered.
pub fn tagged(value: &Value) -> Option<(&str, &str)> {
    let object = value.as_object()?;
    if object.len() != 1 {
        return None;
    }
    let word = object.get(MARK)?.as_str()?;
    let (kind, _) = word.split_once(' ')?;
    Some((kind, word))
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Object(_) if tagged(value).is_some() => 4,
        Value::Array(_) => 5,
        Value::Object(_) => 6,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_with_float(a, float(b)),
        (None, Some(b)) => compare_with_float(b, float(a)).reverse(),
        // Neither is NaN: JSON has none.
        (None, None) => float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// By exact value: a float is an integer and a fraction, and converting the integer would round it.
fn compare_with_float(integer: i128, float: f64) -> Ordering {
    // The cast saturates, and every integer of a `Number` is well inside of i128.
    let below = float.floor();
    integer.cmp(&(below as i128)).then_with(|| if float > below { Ordering::Less } else { Ordering::Equal })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::values;
    use super::*;

    #[test]
    fn numbers_compare_by_their_exact_value() {
        let ascending = [
            json!(-1e300),
            json!(-9223372036854775808.0 * 1.5),
            json!(i64::MIN),
            json!(i64::MIN + 1),
            json!(-1.5),
            json!(-1),
            json!(-0.5),
            json!(0),
            json!(5e-324),
            json!(0.5),
            json!(9007199254740992_u64),
            json!(9007199254740993_u64),
            json!(9007199254740994.0),
            json!(i64::MAX),
            json!(9223372036854775808.0),
            json!(9223372036854775809_u64),
            json!(u64::MAX),
            json!(18446744073709551616.0),
            json!(1e300),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), Some(i.cmp(&j)), "{a} {b}");
                assert_eq!(equal(a, b), i == j, "{a} {b}");
            }
        }
        for (a, b) in [(json!(1), json!(1.0)), (json!(0), json!(-0.0)), (json!(-3), json!(-3.0))] {
            assert!(equal(&a, &b), "{a} {b}");
        }
    }

    #[test]
    fn what_stands_for_another_type_is_ordered_among_its_like() {
        let word = |word: &str| json!({ "$limnion": word });
        assert_eq!(compare(&word("date 2020"), &word("date 2021")), Some(Ordering::Less));
        for other in [
            json!("date 2021"),
            word("datetime 2021"),
            word("date"),
            json!({"$limnion": ["date 2021"]}),
            json!({"$other": "date 2021"}),
            json!({"$limnion": "date 2021", "more": 1}),
        ] {
            assert_eq!(compare(&word("date 2020"), &other), None, "{other}");
            assert_eq!(compare(&other, &word("date 2020")), None, "{other}");
        }
        let ascending =
            [word("date 2021"), word("datetime 2020"), word("datetime 2021"), json!([]), word("date")];
        assert!(ascending.is_sorted_by(|a, b| total_order(a, b).is_lt()));
    }

    proptest! {
        #[test]
        fn the_total_order_is_one_and_agrees_with_equality(a in values(), b in values(), c in values()) {
            prop_assert_eq!(total_order(&a, &b), total_order(&b, &a).reverse());
            prop_assert_eq!(total_order(&a, &b).is_eq(), equal(&a, &b));
            prop_assert_eq!(total_order(&a, &a), Ordering::Equal);
            if total_order(&a, &b).is_le() && total_order(&b, &c).is_le() {
                prop_assert!(total_order(&a, &c).is_le());
            }
            if let Some(order) = compare(&a, &b) {
                prop_assert_eq!(order, total_order(&a, &b));
            }
        }
    }
}
