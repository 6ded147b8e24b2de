//! Time: the wall clock, and the time of commits, which never runs backwards.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::Micros;

/// What the wall clock says. Before 1970 it says 0.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// The time of the commit after one of time `last`, when the wall clock says `now`.
pub fn next(last: Micros, now: Micros) -> Micros {
    now.max(last.saturating_add(1))
}
