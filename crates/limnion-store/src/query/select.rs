//! A page of the records that match.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use limnion_types::filter::{Fields, Filter, Path, total_order};
use limnion_types::{Job, Result};
use serde_json::Value;

use super::Sort;
use super::fields::Wanted;
use crate::model::Record;
use crate::store::Queried;

/// The records that match, in order, from `offset` on, at most `limit`; and how many match in all.
///
/// Without a sort they stay in the order in which they come. With one, values of different types are in the order null,
/// bools, numbers, strings, the rest; records without the field come last, whichever the direction; ties are in the order
/// of keys. No more than `offset + limit` records are kept at a time.
pub fn select(
    records: impl Iterator<Item = Result<Record>>,
    filter: &Filter,
    sort: &[Sort],
    offset: usize,
    limit: usize,
    job: &Job,
) -> Result<Queried> {
    let levels = sort.iter().map(|sort| Path::parse(&sort.field).map_err(|error| error.within("sort")));
    let levels: Vec<Path> = levels.collect::<Result<_>>()?;
    let wanted = Wanted::new(filter.paths().into_iter().chain(&levels).cloned());
    let kept = if limit == 0 { 0 } else { offset.saturating_add(limit) };
    let mut found = Queried::default();
    let mut ranked = BinaryHeap::new();
    for record in records {
        job.check()?;
        job.advance(1);
        let record = record?;
        let row = wanted.of(&record)?;
        if !filter.matches(&row) {
            continue;
        }
        found.total += 1;
        if levels.is_empty() {
            if found.total > offset && found.records.len() < limit {
                drop(row);
                found.records.push(record);
            }
        } else if kept > 0 {
            let values = levels.iter().map(|path| row.field(path).map(|value| value.into_owned())).collect();
            drop(row);
            let one = Ranked { sort, values, record };
            if ranked.len() < kept {
                ranked.push(one);
            } else if let Some(mut last) = ranked.peek_mut()
                && one < *last
            {
                *last = one;
            }
        }
    }
    if !levels.is_empty() {
        let sorted = ranked.into_sorted_vec();
        found.records = sorted.into_iter().skip(offset).map(|ranked| ranked.record).collect();
    }
    Ok(found)
}

/// A record with what it is sorted by.
struct Ranked<'a> {
    sort: &'a [Sort],
    values: Vec<Option<Value>>,
    record: Record,
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let levels = self.sort.iter().zip(self.values.iter().zip(&other.values));
        let by_values = levels.map(|(sort, values)| match values {
            (Some(a), Some(b)) if sort.descending => total_order(b, a),
            (Some(a), Some(b)) => total_order(a, b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        });
        let first = by_values.into_iter().find(|order| order.is_ne());
        first.unwrap_or_else(|| {
            let place = |record: &Record| (record.key.clone(), record.namespace.clone(), record.version);
            place(&self.record).cmp(&place(&other.record))
        })
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked<'_> {}

#[cfg(test)]
mod tests {
    use limnion_types::{Error, ErrorKind};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::{record, values};
    use super::*;

    fn by(field: &str, descending: bool) -> Sort {
        Sort { field: field.to_owned(), descending }
    }

    fn keys(found: &Queried) -> Vec<&str> {
        found.records.iter().map(|record| &*record.key).collect()
    }

    fn some_records() -> Vec<Result<Record>> {
        let texts = [
            ("a", r#"{"n": 2, "s": "x"}"#),
            ("b", r#"{"s": "y"}"#),
            ("c", r#"{"n": 1.5, "s": "x"}"#),
            ("d", r#"{"n": "1", "s": "x"}"#),
            ("e", r#"{"n": true}"#),
            ("f", r#"{"n": null, "s": "x"}"#),
            ("g", r#"{"n": 2.0, "s": "x"}"#),
            ("h", r#"[1]"#),
            ("i", r#"{"n": [0]}"#),
        ];
        texts.iter().map(|(key, text)| Ok(record(key, text, None))).collect()
    }

    fn run(filter: &str, sort: &[Sort], offset: usize, limit: usize) -> Queried {
        let filter = Filter::from_text(filter).unwrap();
        select(some_records().into_iter(), &filter, sort, offset, limit, &Job::new()).unwrap()
    }

    #[test]
    fn missing_fields_come_last_and_ties_follow_the_keys() {
        assert_eq!(keys(&run("", &[by("n", false)], 0, 99)), ["f", "e", "c", "a", "g", "d", "i", "b", "h"]);
        assert_eq!(keys(&run("", &[by("n", true)], 0, 99)), ["i", "d", "a", "g", "c", "e", "f", "b", "h"]);
        assert_eq!(keys(&run("n EXISTS", &[by("s", true), by("$key", true)], 0, 3)), ["g", "f", "d"]);
        assert_eq!(keys(&run("", &[by("$version", true)], 0, 2)), ["a", "b"]);
    }

    #[test]
    fn a_page_knows_how_many_there_are_in_all() {
        let found = run("s = 'x'", &[], 1, 2);
        assert_eq!((keys(&found), found.total), (vec!["c", "d"], 5));
        let found = run("s = 'x'", &[by("n", false)], 4, usize::MAX);
        assert_eq!((keys(&found), found.total), (vec!["d"], 5));
        for sort in [vec![], vec![by("n", false)]] {
            let found = run("s = 'x'", &sort, 0, 0);
            assert_eq!((found.records.len(), found.total), (0, 5));
        }
    }

    #[test]
    fn what_is_wrong_with_records_or_the_sort_is_told() {
        let broken = [Err(Error::new(ErrorKind::Corruption, "torn"))];
        let error = select(broken.into_iter(), &Filter::All, &[], 0, 1, &Job::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        let error =
            select(std::iter::empty(), &Filter::All, &[by("a..b", false)], 0, 1, &Job::new()).unwrap_err();
        assert_eq!(error.to_string(), "sort: field \"a..b\" must have a name before and after each dot");
        let job = Job::new();
        job.cancel();
        let error = select(some_records().into_iter(), &Filter::All, &[], 0, 1, &job).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    proptest! {
        #[test]
        fn pages_are_those_of_a_full_sort(
            values in proptest::collection::vec((proptest::option::of(values()), 0..3), 0..20),
            descending in any::<(bool, bool)>(),
            offset in 0usize..12,
            limit in 0usize..12,
        ) {
            let text = |(a, b): &(Option<Value>, i32)| match a {
                Some(a) => json!({"a": a, "b": b}).to_string(),
                None => json!({"b": b}).to_string(),
            };
            let records: Vec<Record> =
                values.iter().enumerate().map(|(at, one)| record(&format!("{at:02}"), &text(one), None)).collect();
            let sort = [by("b", descending.0), by("a", descending.1)];
            let filter = Filter::from_text("b > 0").unwrap();
            let found = select(records.into_iter().map(Ok), &filter, &sort, offset, limit, &Job::new()).unwrap();

            let mut expected: Vec<usize> = (0..values.len()).filter(|&at| values[at].1 > 0).collect();
            prop_assert_eq!(found.total, expected.len());
            expected.sort_by(|&x, &y| {
                let turn = |order: Ordering, descending| if descending { order.reverse() } else { order };
                let by_a = match (&values[x].0, &values[y].0) {
                    (Some(a), Some(b)) => turn(total_order(a, b), descending.1),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => Ordering::Equal,
                };
                turn(values[x].1.cmp(&values[y].1), descending.0).then(by_a)
            });
            let expected: Vec<String> =
                expected.iter().skip(offset).take(limit).map(|at| format!("{at:02}")).collect();
            prop_assert_eq!(keys(&found), expected);
        }
    }
}
