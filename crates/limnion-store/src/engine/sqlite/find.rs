//! Versions of records, now and at any point in history. Everything here costs what the answer is large, and a few seeks.

use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};

use super::codec;
use super::error::{Outcome, damaged, rows};
use crate::engine::{Found, Head, Keyed, Row};
use crate::hash;
use crate::model::{At, KeyRange, Kind, Micros, Seq};

/// Several statements that see one state of the database.
pub(super) struct Snapshot<'a>(&'a Connection);

impl<'a> Snapshot<'a> {
    pub(super) fn begin(connection: &'a Connection) -> Outcome<Self> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // It has read only: there is nothing to lose. Should it fail, the connection is not used again (`Pool::with`).
        let _ = self.0.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
    }
}

/// A point in history: both limits are included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    seq: i64,
    time: i64,
}

impl Limit {
    /// Finds the commit of a time where the log has it, since rows lie in the order of commits.
    pub(super) fn of(connection: &Connection, at: At) -> Outcome<Self> {
        Ok(match at {
            At::Latest => Self { seq: i64::MAX, time: i64::MAX },
            At::Seq(seq) => Self { seq: clamp(seq), time: i64::MAX },
            At::Time(time) => match commit_at(connection, time)? {
                Some(seq) => Self { seq: clamp(seq), time: i64::MAX },
                None => Self { seq: i64::MAX, time: clamp(time) },
            },
        })
    }

    /// Just after a commit.
    fn at(seq: Seq) -> Self {
        Self { seq: clamp(seq), time: i64::MAX }
    }

    fn includes(self, seq: Seq, time: Micros) -> bool {
        seq <= self.seq.cast_unsigned() && time <= self.time.cast_unsigned()
    }
}

fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that is never negative.
pub(super) fn unsigned(row: &SqlRow<'_>, column: usize) -> Outcome<u64> {
    let number: i64 = row.get(column)?;
    Ok(u64::try_from(number).map_err(|_| damaged("a number in a row is negative"))?)
}

/// The columns that [`row`] reads, in order.
macro_rules! columns {
    () => {
        "seq, time, previous, kind, expires, digest, places, payload"
    };
}
pub(super) use columns;

/// A row from eight columns that begin at `from`; from the first six, where the payload is not wanted.
pub(super) fn row(row: &SqlRow<'_>, from: usize, payload: bool) -> Outcome<Row> {
    let odd = || damaged("a row has a kind, a hash or places that cannot be");
    let expires = match row.get::<_, Option<i64>>(from + 4)? {
        Some(_) => Some(unsigned(row, from + 4)?),
        None => None,
    };
    let check = row.get_ref(from + 5)?.as_blob().ok().and_then(|digest| digest.try_into().ok());
    let mut found = Row {
        seq: unsigned(row, from)?,
        time: unsigned(row, from + 1)?,
        previous: unsigned(row, from + 2)?,
        kind: codec::kind(row.get(from + 3)?).ok_or_else(odd)?,
        expires,
        check: check.ok_or_else(odd)?,
        payload: std::sync::Arc::default(),
        places: Vec::new(),
    };
    if payload {
        if let Some(places) = row.get_ref(from + 6)?.as_blob_or_null().map_err(|_| odd())? {
            found.places = codec::places(places).ok_or_else(odd)?;
        }
        found.payload = row.get_ref(from + 7)?.as_blob().map_err(|_| odd())?.into();
    }
    Ok(found)
}

/// A namespace, as those who verify what they read have to know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space<'a> {
    pub(super) id: i64,
    pub(super) name: &'a str,
}

impl Space<'_> {
    /// A row whose payload is not read decides something even so: which version was current, which key there is. The store
    /// verifies what it is given whole; this is verified here.
    fn verify(self, key: &str, row: &Row) -> Outcome<()> {
        if hash::is_head_whole(self.name, key, row) {
            return Ok(());
        }
        Err(damaged(format!("{}/{key}: version {} is not what was written", self.name, row.seq)).into())
    }
}

const NEWEST: &str = concat!("SELECT id, ", columns!(), " FROM record WHERE namespace = ?1 AND key = ?2");

/// The version of a record at a point in history.
pub(super) fn get(connection: &Connection, space: Space<'_>, key: &str, at: At) -> Outcome<Option<Found>> {
    if at == At::Latest {
        let mut newest = connection.prepare_cached(NEWEST)?;
        let mut newest = newest.query(params![space.id, key])?;
        return match newest.next()? {
            Some(newest) => Ok(Some(Found { row: row(newest, 1, true)?, next_previous: None })),
            None => verify_absent(connection, space, key).map(|()| None),
        };
    }
    let _snapshot = Snapshot::begin(connection)?;
    let limit = Limit::of(connection, at)?;
    let mut newest = connection.prepare_cached(NEWEST)?;
    let mut newest = newest.query(params![space.id, key])?;
    let Some(newest) = newest.next()? else { return verify_absent(connection, space, key).map(|()| None) };
    if limit.includes(unsigned(newest, 1)?, unsigned(newest, 2)?) {
        return Ok(Some(Found { row: row(newest, 1, true)?, next_previous: None }));
    }
    let bare = row(newest, 1, false)?;
    space.verify(key, &bare)?;
    older(connection, space, key, newest.get(0)?, limit, bare, true)
}

/// What is not found in the index might be there, had the entry not been damaged. A search for it ends beside such an
/// entry: so those on both sides are compared with the records that they stand for.
fn verify_absent(connection: &Connection, space: Space<'_>, key: &str) -> Outcome<()> {
    verify_neighbour(connection, BEFORE, space, key)?;
    verify_neighbour(connection, BEHIND, space, key)
}

const BEFORE: &str = "SELECT namespace, key, seq, time, previous, kind, expires, digest FROM record
     WHERE (namespace, key) < (?1, ?2) ORDER BY namespace DESC, key DESC LIMIT 1";
const BEHIND: &str = "SELECT namespace, key, seq, time, previous, kind, expires, digest FROM record
     WHERE (namespace, key) > (?1, ?2) ORDER BY namespace, key LIMIT 1";

fn verify_neighbour(connection: &Connection, which: &str, space: Space<'_>, key: &str) -> Outcome<()> {
    let mut neighbour = connection.prepare_cached(which)?;
    let mut neighbour = neighbour.query(params![space.id, key])?;
    let Some(neighbour) = neighbour.next()? else { return Ok(()) };
    let (id, key): (i64, String) = (neighbour.get(0)?, neighbour.get(1)?);
    let found = row(neighbour, 2, false)?;
    if id == space.id {
        return space.verify(&key, &found);
    }
    let mut name = connection.prepare_cached("SELECT name FROM namespace WHERE id = ?1")?;
    let name: Option<String> = name.query_row([id], |row| row.get(0)).optional()?;
    let name = name.ok_or_else(|| damaged("a record is in a namespace that is not there"))?;
    Space { id, name: &name }.verify(&key, &found)
}

/// The newest version that `limit` includes of a record whose newest version, `newest`, it does not include.
fn older(
    connection: &Connection,
    space: Space<'_>,
    key: &str,
    record: i64,
    limit: Limit,
    newest: Row,
    payload: bool,
) -> Outcome<Option<Found>> {
    if newest.previous == 0 {
        return Ok(None);
    }
    let given = |row: Row, next: Row| -> Outcome<Option<Found>> {
        space.verify(key, &next)?;
        if limit.includes(next.seq, next.time) {
            return Err(damaged("the versions of a record are out of order").into());
        }
        if !payload {
            space.verify(key, &row)?;
        }
        Ok(Some(Found { row, next_previous: Some(next.previous) }))
    };
    let mut loose = connection.prepare_cached(LOOSE)?;
    let mut loose = loose.query(params![record, limit.seq, limit.time])?;
    if let Some(loose) = loose.next()? {
        let row = row(loose, 0, payload)?;
        let next = loose_after(connection, record, Limit::at(row.seq))?.unwrap_or(newest);
        return given(row, next);
    }
    let mut packs = connection.prepare_cached(PACKS)?;
    let mut packs = packs.query(params![record, limit.seq, limit.time])?;
    let Some(pack) = packs.next()? else {
        let next = after(connection, record, limit)?.unwrap_or(newest);
        space.verify(key, &next)?;
        return verify_link(connection, record, next.previous, 0).map(|()| None);
    };
    let first = unsigned(pack, 0)?;
    let pack = unpack(pack)?;
    let mut next = None;
    for (at, bare) in pack.rows().iter().enumerate().rev() {
        if limit.includes(bare.seq, bare.time) {
            let row = if payload { pack.row(at) } else { Some(Row { places: Vec::new(), ..bare.clone() }) };
            let Some(row) = row else { break };
            let next = match next {
                Some(next) => next,
                None => after(connection, record, Limit::at(first))?.unwrap_or(newest),
            };
            return given(row, next);
        }
        next = Some(bare.clone());
    }
    Err(damaged("a pack does not begin with the version that it says").into())
}

/// Says whether nothing is missing before a version that says that `previous` came before it, where `found` did (0:
/// nothing).
fn verify_link(connection: &Connection, record: i64, previous: Seq, found: Seq) -> Outcome<()> {
    if previous == found {
        return Ok(());
    }
    let mut retired = connection
        .prepare_cached("SELECT 1 FROM retired WHERE record = ?1 AND first <= ?2 AND last >= ?2")?;
    if retired.exists(params![record, clamp(previous)])? {
        return Ok(());
    }
    Err(damaged(format!("version {previous} of a record is missing")).into())
}

const LOOSE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM version WHERE record = ?1 AND seq <= ?2 AND time <= ?3 ORDER BY seq DESC"
);
const PACKS: &str =
    "SELECT first, rows FROM pack WHERE record = ?1 AND first <= ?2 AND time <= ?3 ORDER BY first DESC";

fn unpack(pack: &SqlRow<'_>) -> Outcome<codec::Pack> {
    let rows = pack.get_ref(1)?.as_blob().map_err(|_| damaged("a pack of old versions is damaged"))?;
    Ok(codec::Pack::open(rows)?)
}

/// The first loose version behind a limit, without its payload.
fn loose_after(connection: &Connection, record: i64, limit: Limit) -> Outcome<Option<Row>> {
    let mut next =
        connection.prepare_cached(if limit.time == i64::MAX { LOOSE_AFTER } else { LOOSE_LATER })?;
    let mut next = next.query(params![record, limit.seq, limit.time])?;
    next.next()?.map(|next| row(next, 0, false)).transpose()
}

// The third parameter has to be used.
const LOOSE_AFTER: &str = "SELECT seq, time, previous, kind, expires, digest FROM version
     WHERE record = ?1 AND seq > ?2 AND ?3 > 0 ORDER BY seq LIMIT 1";
const LOOSE_LATER: &str = "SELECT seq, time, previous, kind, expires, digest FROM version
     WHERE record = ?1 AND (seq > ?2 OR time > ?3) ORDER BY seq LIMIT 1";

/// The first version behind a limit that is not the newest, without its payload. Where a limit lies inside a pack, its
/// rows say more.
fn after(connection: &Connection, record: i64, limit: Limit) -> Outcome<Option<Row>> {
    let mut next = connection.prepare_cached(if limit.time == i64::MAX { PACK_AFTER } else { PACK_LATER })?;
    let mut next = next.query(params![record, limit.seq, limit.time])?;
    if let Some(pack) = next.next()? {
        return Ok(unpack(pack)?.rows().first().cloned());
    }
    loose_after(connection, record, limit)
}

const PACK_AFTER: &str = "SELECT first, rows FROM pack
     WHERE record = ?1 AND first > ?2 AND ?3 > 0 ORDER BY first LIMIT 1";
const PACK_LATER: &str = "SELECT first, rows FROM pack
     WHERE record = ?1 AND (first > ?2 OR time > ?3) ORDER BY first LIMIT 1";

/// See [`crate::engine::Reader::history`].
pub(super) fn history(
    connection: &Connection,
    space: Space<'_>,
    key: &str,
    since: Option<At>,
    at: At,
    limit: usize,
) -> Outcome<Vec<Found>> {
    let _snapshot = Snapshot::begin(connection)?;
    let upper = Limit::of(connection, at)?;
    let lower = since.map(|since| Limit::of(connection, since)).transpose()?;
    let too_old = |row: &Row| lower.is_some_and(|lower| lower.includes(row.seq, row.time));
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let mut newest = connection.prepare_cached(NEWEST)?;
    let mut newest = newest.query(params![space.id, key])?;
    let Some(newest) = newest.next()? else {
        verify_absent(connection, space, key)?;
        return Ok(found);
    };
    let record: i64 = newest.get(0)?;
    let top = row(newest, 1, false)?;
    // What the version after the one that comes next says of the version before it; unknown below a limit.
    let mut next_previous = None;
    if upper.includes(top.seq, top.time) {
        if too_old(&top) {
            space.verify(key, &top)?;
            return Ok(found);
        }
        next_previous = Some(top.previous);
        found.push(Found { row: row(newest, 1, true)?, next_previous: None });
    } else {
        space.verify(key, &top)?;
    }
    if top.previous == 0 {
        return Ok(found);
    }
    // The first version that is not wanted says where to stop: so it has to be what it was.
    let stop = |row: &Row, next: Option<Seq>| -> Outcome<()> {
        space.verify(key, row)?;
        next.map_or(Ok(()), |next| verify_link(connection, record, next, row.seq))
    };
    let next_of = |next: Option<Row>| -> Outcome<Seq> {
        let next = next.as_ref().unwrap_or(&top);
        space.verify(key, next)?;
        Ok(next.previous)
    };
    let mut loose = connection.prepare_cached(LOOSE)?;
    let mut loose = loose.query(params![record, upper.seq, upper.time])?;
    while found.len() < limit
        && let Some(loose) = loose.next()?
    {
        let row = row(loose, 0, true)?;
        if too_old(&row) {
            stop(&row, next_previous)?;
            return Ok(found);
        }
        in_order(&found, &row)?;
        let next = match next_previous {
            Some(next) => next,
            None => next_of(loose_after(connection, record, Limit::at(row.seq))?)?,
        };
        next_previous = Some(row.previous);
        found.push(Found { row, next_previous: Some(next) });
    }
    let mut packs = connection.prepare_cached(PACKS)?;
    let mut packs = packs.query(params![record, upper.seq, upper.time])?;
    while found.len() < limit
        && let Some(pack) = packs.next()?
    {
        let first = unsigned(pack, 0)?;
        let pack = unpack(pack)?;
        for (at, bare) in pack.rows().iter().enumerate().rev() {
            if upper.includes(bare.seq, bare.time) {
                if too_old(bare) {
                    stop(bare, next_previous)?;
                    return Ok(found);
                }
                if found.len() >= limit {
                    return Ok(found);
                }
                in_order(&found, bare)?;
                let next = match next_previous {
                    Some(next) => next,
                    None => next_of(match pack.rows().get(at + 1) {
                        Some(next) => Some(next.clone()),
                        None => after(connection, record, Limit::at(first))?,
                    })?,
                };
                next_previous = Some(bare.previous);
                found.extend(pack.row(at).map(|row| Found { row, next_previous: Some(next) }));
            }
        }
    }
    if found.len() < limit {
        // There is nothing before: that has to be so.
        let next = match next_previous {
            Some(next) => next,
            None => next_of(after(connection, record, upper)?)?,
        };
        verify_link(connection, record, next, 0)?;
    }
    Ok(found)
}

/// Pages that point in circles must not lead us in circles.
fn in_order(found: &[Found], row: &Row) -> Outcome<()> {
    match found.last() {
        Some(newer) if newer.row.seq <= row.seq => {
            Err(damaged("the versions of a record are out of order").into())
        }
        _ => Ok(()),
    }
}

/// See [`crate::engine::Reader::scan`].
pub(super) fn scan(
    connection: &Connection,
    space: Space<'_>,
    range: &KeyRange,
    at: At,
    limit: usize,
    reverse: bool,
    payloads: bool,
) -> Outcome<Vec<Keyed>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let (start, from) = match &range.start {
        Included(start) => (start.as_str(), ">="),
        Excluded(start) => (start.as_str(), ">"),
        Unbounded => ("", ">="),
    };
    let (end, to) = match &range.end {
        Included(end) => (end.as_str(), "AND key <= ?3"),
        Excluded(end) => (end.as_str(), "AND key < ?3"),
        // The parameter has to be used.
        Unbounded => ("", "AND ?3 = ''"),
    };
    let columns = if payloads {
        "id, key, seq, time, previous, kind, expires, digest, places, payload"
    } else {
        "id, key, seq, time, previous, kind, expires, digest"
    };
    let order = if reverse { "DESC" } else { "ASC" };
    let most = if at == At::Latest { rows(limit) } else { i64::MAX };
    let sql = format!(
        "SELECT {columns} FROM record WHERE namespace = ?1 AND key {from} ?2 {to} ORDER BY key {order} LIMIT ?4"
    );
    let mut found = Vec::<Keyed>::new();
    let _snapshot = if at == At::Latest { None } else { Some(Snapshot::begin(connection)?) };
    let until = Limit::of(connection, at)?;
    let mut newest = connection.prepare_cached(&sql)?;
    let mut newest = newest.query(params![space.id, start, end, most])?;
    while found.len() < limit
        && let Some(newest) = newest.next()?
    {
        let key: String = newest.get(1)?;
        let version = if until.includes(unsigned(newest, 2)?, unsigned(newest, 3)?) {
            let row = row(newest, 2, payloads)?;
            if !payloads {
                space.verify(&key, &row)?;
            }
            Some(Found { row, next_previous: None })
        } else {
            let bare = row(newest, 2, false)?;
            space.verify(&key, &bare)?;
            older(connection, space, &key, newest.get(0)?, until, bare, payloads)?
        };
        if let Some(version) = version {
            if found.last().is_some_and(|last| if reverse { last.key <= key } else { last.key >= key }) {
                return Err(damaged("the records are out of order").into());
            }
            found.push(Keyed { key, found: version });
        }
    }
    if found.len() < limit {
        // An entry that is damaged may end a scan, or hide where it should have begun.
        verify_absent(connection, space, start)?;
        let last = if reverse { found.first() } else { found.last() };
        verify_neighbour(connection, BEHIND, space, last.map_or(start, |last| &last.key))?;
        if !end.is_empty() {
            verify_absent(connection, space, end)?;
        }
    }
    Ok(found)
}

/// The newest commit.
pub(super) fn head(connection: &Connection) -> Outcome<Head> {
    let sql = "SELECT seq, time, chain FROM log ORDER BY seq DESC LIMIT 1";
    one_head(connection, sql)
}

/// A commit, where the log has it.
pub(super) fn commit(connection: &Connection, seq: Seq) -> Outcome<Option<Head>> {
    let mut statement = connection.prepare_cached("SELECT seq, time, chain FROM log WHERE seq = ?1")?;
    let mut rows = statement.query([clamp(seq)])?;
    rows.next()?.map(head_of).transpose()
}

/// The oldest commit that the log has.
pub(super) fn first_commit(connection: &Connection) -> Outcome<Head> {
    one_head(connection, "SELECT seq, time, chain FROM log ORDER BY seq LIMIT 1")
}

fn one_head(connection: &Connection, sql: &str) -> Outcome<Head> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    match rows.next()? {
        Some(row) => head_of(row),
        None => Ok(Head::default()),
    }
}

/// A commit from its number, time and chain, verified.
pub(super) fn head_of(row: &SqlRow<'_>) -> Outcome<Head> {
    let (seq, time) = (unsigned(row, 0)?, unsigned(row, 1)?);
    let noted = row.get_ref(2)?.as_blob().ok().and_then(|noted| noted.split_first_chunk());
    match noted {
        Some((chain, brief)) if *brief == brief_of(seq, time, chain) => Ok(Head { seq, time, chain: *chain }),
        _ => Err(damaged(format!("commit {seq} in the log is not what was written")).into()),
    }
}

/// The chain of a commit as the log has it: behind it a short hash over number, time and chain.
pub(super) fn noted(head: &Head) -> Vec<u8> {
    [&head.chain[..], &brief_of(head.seq, head.time, &head.chain)].concat()
}

fn brief_of(seq: Seq, time: Micros, chain: &[u8; 32]) -> [u8; 8] {
    hash::brief([&seq.to_le_bytes(), &time.to_le_bytes(), chain])
}

/// The last commit at or before a time. Times grow with numbers, so a search by halves needs no index.
pub(super) fn commit_at(connection: &Connection, time: Micros) -> Outcome<Option<Seq>> {
    let (first, last) = (first_commit(connection)?, head(connection)?);
    if first.seq == 0 || time < first.time {
        return Ok(None);
    }
    if time >= last.time {
        return Ok(Some(last.seq));
    }
    let mut next =
        connection.prepare_cached("SELECT seq, time FROM log WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    // The commit is at or after `low`, and before `high`.
    let (mut low, mut high) = (first.seq, last.seq);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let found =
            next.query(params![clamp(middle)])?.next()?.map(|row| (unsigned(row, 0), unsigned(row, 1)));
        match found {
            Some((seq, at)) => {
                let (seq, at) = (seq?, at?);
                if seq < high && at <= time {
                    low = seq;
                } else {
                    high = middle;
                }
            }
            None => high = middle,
        }
    }
    // Whatever led here, these two have to be neighbours on both sides of that time.
    let mut both =
        connection.prepare_cached("SELECT seq, time, chain FROM log WHERE seq >= ?1 ORDER BY seq LIMIT 2")?;
    let mut both = both.query([clamp(low)])?;
    let mut next = || both.next()?.map(head_of).transpose();
    match (next()?, next()?) {
        (Some(before), Some(behind))
            if before.seq == low && behind.seq == low + 1 && before.time <= time && time < behind.time =>
        {
            Ok(Some(low))
        }
        _ => Err(damaged("the log is out of order").into()),
    }
}

/// Records that have run out: namespace and key.
pub(super) fn expired(connection: &Connection, now: Micros, limit: usize) -> Outcome<Vec<(String, String)>> {
    let mut statement = connection.prepare_cached(EXPIRED)?;
    let found =
        statement.query_map(params![clamp(now), rows(limit)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

const EXPIRED: &str =
    "SELECT namespace.name, record.key FROM record JOIN namespace ON namespace.id = record.namespace
     WHERE record.expires <= ?1 AND record.kind = 0 ORDER BY record.expires LIMIT ?2";

/// See [`crate::engine::Reader::expiries`].
pub(super) fn expiries(
    connection: &Connection,
    space: Space<'_>,
    now: Micros,
) -> Outcome<(Option<Micros>, Micros)> {
    let _snapshot = Snapshot::begin(connection)?;
    let mut last = None;
    let mut past = connection.prepare_cached(RAN_OUT)?;
    let mut past = past.query([clamp(now)])?;
    while let Some(found) = past.next()? {
        if found.get::<_, i64>(0)? == space.id {
            last = Some(expiry(space, found)?);
            break;
        }
    }
    let mut next = Micros::MAX;
    let mut coming = connection.prepare_cached(RUNS_OUT)?;
    let mut coming = coming.query([clamp(now), i64::MAX])?;
    // Those of other namespaces may be many: beyond so many it is said when to look again.
    for looked in 0.. {
        let Some(found) = coming.next()? else { break };
        if found.get::<_, i64>(0)? == space.id {
            next = expiry(space, found)?;
            break;
        } else if looked == LOOKED_AT {
            next = unsigned(found, 6)?;
            break;
        }
    }
    Ok((last, next))
}

/// See [`crate::engine::Reader::run_out`].
pub(super) fn run_out(
    connection: &Connection,
    space: Space<'_>,
    after: Micros,
    until: Micros,
) -> Outcome<Vec<std::sync::Arc<str>>> {
    let mut due = connection.prepare_cached(RUNS_OUT)?;
    let mut due = due.query([clamp(after), clamp(until)])?;
    let mut keys = Vec::new();
    while let Some(found) = due.next()? {
        if found.get::<_, i64>(0)? == space.id {
            expiry(space, found)?;
            keys.push(found.get(1)?);
        }
    }
    Ok(keys)
}

/// How many records of other namespaces are looked at for the next one of a namespace that runs out.
const LOOKED_AT: usize = 256;

/// When a record runs out, verified: the index is not the record.
fn expiry(space: Space<'_>, found: &SqlRow<'_>) -> Outcome<Micros> {
    let row = row(found, 2, false)?;
    space.verify(&found.get::<_, String>(1)?, &row)?;
    Ok(row.expires.ok_or_else(|| damaged("a record without expiry is said to run out"))?)
}

const RAN_OUT: &str = "SELECT namespace, key, seq, time, previous, kind, expires, digest FROM record
     WHERE expires <= ?1 AND kind = 0 ORDER BY expires DESC";
const RUNS_OUT: &str = "SELECT namespace, key, seq, time, previous, kind, expires, digest FROM record
     WHERE expires > ?1 AND expires <= ?2 AND kind = 0 ORDER BY expires";

/// What a writer has to know of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) id: i64,
    pub(super) seq: Seq,
    pub(super) kind: Kind,
    pub(super) expires: Option<Micros>,
    /// The bytes of its newest payload.
    pub(super) bytes: i64,
}

/// The newest version of a record, without its payload.
pub(super) fn known(connection: &Connection, namespace: i64, key: &str) -> Outcome<Option<Known>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, seq, kind, expires, length(payload) FROM record WHERE namespace = ?1 AND key = ?2",
    )?;
    let mut rows = statement.query(params![namespace, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let kind = codec::kind(row.get(2)?).ok_or_else(|| damaged("a row has a kind that cannot be"))?;
    let expires = row.get::<_, Option<i64>>(3)?.map(|_| unsigned(row, 3)).transpose()?;
    Ok(Some(Known { id: row.get(0)?, seq: unsigned(row, 1)?, kind, expires, bytes: row.get(4)? }))
}

/// The number of a namespace.
pub(super) fn namespace(connection: &Connection, name: &str) -> Outcome<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM namespace WHERE name = ?1")?;
    let id: Option<i64> = statement.query_row([name], |row| row.get(0)).optional()?;
    // The index has the name, and so has the table: both have to say the same.
    let mut other = match id {
        Some(_) => connection.prepare_cached("SELECT 1 FROM namespace WHERE id = ?2 AND +name = ?1")?,
        None => {
            connection.prepare_cached("SELECT 1 FROM namespace NOT INDEXED WHERE name = ?1 AND ?2 IS NULL")?
        }
    };
    if other.exists(params![name, id])? != id.is_some() {
        return Err(damaged(format!("the namespace {name:?} is not in order")).into());
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan with SCAN in it costs what the database is large.
    #[test]
    fn what_is_asked_often_is_sought_and_never_scanned() {
        let connection = Connection::open_in_memory().unwrap();
        super::super::schema::tables_for_tests(&connection);
        for sql in [
            concat!("SELECT ", columns!(), " FROM record WHERE namespace = ?1 AND key = ?2"),
            "SELECT key FROM record WHERE namespace = ?1 AND key >= ?2 AND key < ?3 ORDER BY key DESC LIMIT ?4",
            "SELECT key FROM record WHERE namespace = ?1 AND key >= ?2 AND ?3 = '' ORDER BY key ASC LIMIT ?4",
            LOOSE,
            PACKS,
            EXPIRED,
            RAN_OUT,
            RUNS_OUT,
            LOOSE_AFTER,
            PACK_AFTER,
            BEFORE,
            BEHIND,
            "SELECT seq, time FROM log WHERE seq >= ?1 ORDER BY seq LIMIT 1",
            super::super::reader::LOOKUP,
            super::super::reader::ENTRY_BEFORE,
            super::super::reader::ENTRY_BEHIND,
            super::super::compress::NEXT,
            "DELETE FROM field WHERE record = ?1",
            "DELETE FROM field WHERE field_index = ?1",
            "DELETE FROM value WHERE segment = ?1",
        ] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> =
                plan.raw_query().mapped(|row| row.get::<_, String>(3)).map(|step| step.unwrap()).collect();
            assert!(!plan.is_empty(), "{sql}");
            let slow = |step: &&String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
            assert_eq!(plan.iter().find(slow), None, "{sql}\n{plan:?}");
        }
    }
}
