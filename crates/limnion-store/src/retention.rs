//! Which versions retention keeps.

use std::collections::HashMap;

use limnion_types::Result;

use crate::engine::Row;
use crate::hash;
use crate::maintenance::sum_up;
use crate::model::{Kind, Micros, Seq};
use crate::options::Retention;
use crate::payload::Payload;
use crate::writer::Core;

/// The versions that may go: `rows` are all versions of a record, oldest first; `fixed` are points in history at which
/// somebody wants to read, tags and readers under way.
pub(crate) fn droppable(rows: &[Row], policy: &Retention, fixed: &[Seq], now: Micros) -> Vec<Seq> {
    let keep_last = policy.keep_last.map_or(1, |count| count.max(1)) as usize;
    let horizon = policy
        .keep_for
        .map(|time| now.saturating_sub(u64::try_from(time.as_micros()).unwrap_or(Micros::MAX)));
    let old = rows.len().saturating_sub(keep_last);
    let pairs = rows.iter().zip(rows.iter().skip(1)).take(old);
    let dropped = pairs.filter(|(row, next)| {
        // It was current from its own time until that of the next one.
        let recent = horizon.is_some_and(|horizon| next.time > horizon);
        let wanted = fixed.iter().any(|&seq| row.seq <= seq && seq < next.seq);
        !recent && !wanted
    });
    dropped.map(|(row, _)| row.seq).collect()
}

/// Applies retention to a record; gives how many versions went.
pub(crate) fn apply(
    core: &mut Core,
    policy: &Retention,
    fixed: &[Seq],
    records: &[(std::sync::Arc<str>, std::sync::Arc<str>, Vec<Row>)],
    now: Micros,
) -> Result<u64> {
    let mut due = Vec::new();
    for (namespace, key, rows) in records {
        // What is damaged must not decide what goes.
        if !rows.iter().all(|row| hash::is_whole(namespace, key, row)) {
            continue;
        }
        let seqs = droppable(rows, policy, fixed, now);
        if !seqs.is_empty() {
            let gone = rows.iter().filter(|row| seqs.contains(&row.seq));
            due.push((namespace, key, seqs.clone(), freed(gone)));
        }
    }
    if due.is_empty() {
        return Ok(0);
    }
    let count = due.iter().map(|(_, _, seqs, _)| seqs.len() as u64).sum();
    let released: Vec<(u32, u64)> = due.iter().flat_map(|(_, _, _, freed)| freed.iter().copied()).collect();
    core.commit(|_, transaction, _| {
        for (namespace, key, seqs, freed) in &due {
            transaction.retire(namespace, key, seqs, freed)?;
        }
        Ok(((), Vec::new()))
    })?;
    for (segment, bytes) in released {
        core.stamper.appender.release(segment, bytes);
    }
    Ok(count)
}

/// What rows refer to in segments: segment and bytes.
fn freed<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<(u32, u64)> {
    let parts = rows.filter(|row| row.kind == Kind::Put && !row.places.is_empty()).flat_map(|row| {
        let payload = Payload::decode(row.payload.clone()).unwrap_or_default();
        let lengths: Vec<u64> = payload.elsewhere().iter().map(|(_, lies)| lies.length).collect();
        row.places.iter().map(|place| place.segment).zip(lengths).collect::<Vec<_>>()
    });
    let mut freed: HashMap<u32, u64> = HashMap::new();
    sum_up(&mut freed, parts);
    freed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rows(times: &[(Seq, Micros)]) -> Vec<Row> {
        let row = |&(seq, time): &(Seq, Micros)| Row {
            seq,
            time,
            previous: 0,
            kind: Kind::Put,
            expires: None,
            check: [0; 16],
            payload: [].into(),
            places: Vec::new(),
        };
        times.iter().map(row).collect()
    }

    fn policy(keep_last: Option<u32>, seconds: Option<u64>) -> Retention {
        Retention { keep_last, keep_for: seconds.map(Duration::from_secs), keep_tagged: true }
    }

    #[test]
    fn each_limit_keeps_what_it_says_and_the_newest_always_stays() {
        let rows = rows(&[(1, 10_000_000), (4, 20_000_000), (6, 30_000_000), (9, 40_000_000)]);
        let now = 45_000_000;
        assert_eq!(droppable(&rows, &policy(None, None), &[], now), [1, 4, 6]);
        assert_eq!(droppable(&rows, &policy(Some(2), None), &[], now), [1, 4]);
        assert_eq!(droppable(&rows, &policy(Some(9), None), &[], now), [0; 0]);
        // Ten seconds ago is 35: version 6 was current then, until 40.
        assert_eq!(droppable(&rows, &policy(None, Some(10)), &[], now), [1, 4]);
        assert_eq!(droppable(&rows, &policy(None, Some(4)), &[], now), [1, 4, 6]);
        assert_eq!(droppable(&rows, &policy(Some(1), Some(u64::MAX)), &[], now), [0; 0]);
        // A tag at commit 5 stands for version 4, one at 9 for the newest.
        assert_eq!(droppable(&rows, &policy(None, None), &[5, 9], now), [1, 6]);
        assert_eq!(droppable(&rows[..1], &policy(None, None), &[], now), [0; 0]);
        assert_eq!(droppable(&[], &policy(None, None), &[], now), [0; 0]);
    }
}
