//! Records as JSON lines, for whoever wants to take them elsewhere or look at them with other tools.
//!
//! The first line says what follows; then each line is a version:
//!
//! ```text
//! {"limnion":"export","format":1,"history":false}
//! {"namespace":"users","key":"alice","version":3,"time":1770000000000000,"value":{"name":"Alice"}}
//! ```
//!
//! `time` and `expires` are microseconds since 1970. A value is JSON as it was written (`"content":"tagged"` where objects
//! in it stand for other types), or base64 with `"content":"bytes"`. A deletion has `"kind"` and no value. `metadata`,
//! `text` and `vectors` (by name) are there where the record has them. A history is in the order of its commits.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use limnion_types::{Error, ErrorKind, Job, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::clock;
use crate::commit::Change;
use crate::folder::failed;
use crate::model::{At, Batch, Body, Content, KeyRange, Kind, Micros, Op, Record, Seq, Vector};
use crate::read::{Point, Reading};
use crate::store::Store;

/// Lines written in one commit, where they come without a history.
const BATCH: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    limnion: &'a str,
    format: u32,
    history: bool,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    namespace: Arc<str>,
    key: Arc<str>,
    version: Seq,
    time: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(default, borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    vectors: BTreeMap<Arc<str>, Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Micros>,
}

/// What is there, where it is null, too: that is a value.
fn present<'a, D: Deserializer<'a>>(source: D) -> std::result::Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(source).map(Some)
}

/// Writes the records of a namespace or of all, as they are at a point, or all of their versions.
pub(crate) fn export(
    reading: &Reading,
    point: Point,
    path: &Path,
    namespace: Option<&str>,
    history: bool,
    job: &Job,
) -> Result<u64> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let file = File::create(partial).map_err(|error| failed("make", partial, &error))?;
    let mut output = Output { file: BufWriter::new(file), path: partial, count: 0 };
    let written = output.write(&Header { limnion: "export", format: 1, history }).and_then(|()| {
        output.count = 0;
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.to_owned()],
            None => reading.engine.stats()?.namespaces.into_keys().collect(),
        };
        if history {
            all_versions(reading, point, namespace, &mut output, job)
        } else {
            newest(reading, point, &namespaces, &mut output, job)
        }
    });
    let ended = written.and_then(|()| {
        let flushed = output.file.flush().and_then(|()| output.file.get_ref().sync_all());
        flushed.map_err(|error| failed("write", partial, &error))?;
        std::fs::rename(partial, path).map_err(|error| failed("rename", partial, &error))
    });
    if ended.is_err() {
        let _ = std::fs::remove_file(partial); // the error is what counts
    }
    ended.map(|()| output.count)
}

struct Output<'a> {
    file: BufWriter<File>,
    path: &'a Path,
    count: u64,
}

impl Output<'_> {
    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        self.count += 1;
        let text = serde_json::to_string(line).map_err(unwritable)?;
        writeln!(self.file, "{text}").map_err(|error| failed("write", self.path, &error))
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        let payload = &record.payload;
        let base64 = (record.kind == Kind::Put && payload.content() == Content::Bytes)
            .then(|| serde_json::value::to_raw_value(&BASE64_STANDARD.encode(payload.value())))
            .transpose()
            .map_err(unwritable)?;
        let value = match (&base64, record.kind) {
            (Some(base64), _) => Some(&**base64),
            (None, Kind::Put) => Some(serde_json::from_slice(payload.value()).map_err(unwritable)?),
            (None, _) => None,
        };
        let kind = match record.kind {
            Kind::Put => None,
            Kind::Deleted => Some("deleted".to_owned()),
            Kind::Expired => Some("expired".to_owned()),
        };
        let content = match payload.content() {
            Content::Json => None,
            Content::TaggedJson => Some("tagged".to_owned()),
            Content::Bytes => Some("bytes".to_owned()),
        };
        let vectors = payload.vectors().into_iter();
        self.write(&Line {
            namespace: record.namespace.clone(),
            key: record.key.clone(),
            version: record.version,
            time: record.time,
            kind,
            content: content.filter(|_| record.kind == Kind::Put),
            value,
            metadata: payload.metadata().map(serde_json::from_str).transpose().map_err(unwritable)?,
            text: payload.text().map(Arc::from),
            vectors: vectors.map(|vector| (vector.name, vector.numbers.to_vec())).collect(),
            expires: record.expires,
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unwritable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Serialization, format!("a record cannot be written as JSON: {error}"))
}

fn newest(
    reading: &Reading,
    point: Point,
    namespaces: &[String],
    output: &mut Output<'_>,
    job: &Job,
) -> Result<()> {
    for namespace in namespaces {
        for record in reading.scan(namespace, KeyRange::ALL, point, false, true) {
            job.check()?;
            let mut record = record?;
            reading.fetch_vectors(&mut record)?;
            output.record(&record)?;
            job.advance(1);
        }
    }
    Ok(())
}

fn all_versions(
    reading: &Reading,
    point: Point,
    namespace: Option<&str>,
    output: &mut Output<'_>,
    job: &Job,
) -> Result<()> {
    let mut plan: Vec<(Seq, Arc<str>, Arc<str>)> = Vec::new();
    let mut after = 0;
    loop {
        job.check()?;
        let records = reading.engine.dump(after, 256)?;
        let Some(end) = records.last() else { break };
        after = match end {
            Ok(record) => record.id,
            Err((id, _)) => *id,
        };
        for record in records {
            let record = record.map_err(|(_, error)| error)?;
            if namespace.is_none_or(|wanted| *record.namespace == *wanted) {
                let rows = record.rows.iter().filter(|row| point.at.includes(row.seq, row.time));
                plan.extend(rows.map(|row| (row.seq, record.namespace.clone(), record.key.clone())));
            }
        }
    }
    plan.sort_unstable();
    for (seq, namespace, key) in plan {
        job.check()?;
        let found = reading.engine.get(&namespace, &key, At::Seq(seq))?;
        if let Some(found) = found.filter(|found| found.row.seq == seq) {
            let mut record = reading.record(namespace, key, found.row)?;
            reading.fetch_vectors(&mut record)?;
            output.record(&record)?;
        }
        job.advance(1);
    }
    Ok(())
}

/// Reads lines into a store.
pub(crate) fn import(store: &Store, path: &Path, job: &Job) -> Result<u64> {
    let file = File::open(path).map_err(|error| failed("open", path, &error))?;
    let mut lines = BufReader::new(file).lines().enumerate().map(|(at, line)| {
        let line = line.map_err(|error| failed("read", path, &error))?;
        Ok::<_, Error>((at + 1, line))
    });
    let first = lines.next().transpose()?.map(|(_, line)| line).unwrap_or_default();
    let header: Header<'_> = serde_json::from_str(&first)
        .ok()
        .filter(|header: &Header<'_>| header.limnion == "export")
        .ok_or_else(|| {
            Error::new(ErrorKind::Validation, format!("{} is no export of a database", path.display()))
                .suggest(r#"its first line would begin with {"limnion":"export""#)
        })?;
    if header.format > 1 {
        return Err(Error::new(
            ErrorKind::NewerDatabase,
            format!("{} has format {}, and this version knows 1", path.display(), header.format),
        ));
    }
    if header.history && store.head()?.0 != 0 {
        return Err(Error::new(
            ErrorKind::Validation,
            "a history can only be imported into a database that has none",
        )
        .suggest("import into a new database, or export without history"));
    }
    let mut count = 0;
    let mut due: Vec<(Seq, Micros, Change)> = Vec::new();
    for line in lines {
        job.check()?;
        let (at, text) = line?;
        if text.trim().is_empty() {
            continue;
        }
        let parsed = parse(&text).map_err(|told| {
            Error::new(ErrorKind::Validation, format!("{}, line {at}: {told}", path.display()))
        })?;
        let full = due.len() >= BATCH;
        let next = due.last().is_some_and(|(seq, _, _)| *seq != parsed.0);
        if full && (next || !header.history) {
            count += write(store, std::mem::take(&mut due), header.history)?;
        }
        due.push(parsed);
        job.advance(1);
    }
    Ok(count + write(store, due, header.history)?)
}

fn parse(text: &str) -> std::result::Result<(Seq, Micros, Change), String> {
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let kind = match line.kind.as_deref() {
        None => Kind::Put,
        Some("deleted") => Kind::Deleted,
        Some("expired") => Kind::Expired,
        Some(kind) => return Err(format!("kind must be 'deleted' or 'expired', got {kind:?}")),
    };
    let body = match (kind, line.value) {
        (Kind::Put, None) => return Err("there is no value".to_owned()),
        (Kind::Put, Some(value)) => {
            let (content, value) = match line.content.as_deref() {
                None => (Content::Json, value.get().as_bytes().into()),
                Some("tagged") => (Content::TaggedJson, value.get().as_bytes().into()),
                Some("bytes") => {
                    let base64: String =
                        serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
                    let bytes = BASE64_STANDARD.decode(base64).map_err(|error| error.to_string())?;
                    (Content::Bytes, bytes.into())
                }
                Some(content) => return Err(format!("content must be 'tagged' or 'bytes', got {content:?}")),
            };
            let vectors = line.vectors.into_iter();
            Some(Body {
                content,
                value,
                metadata: line.metadata.map(|metadata| metadata.get().into()),
                text: line.text,
                vectors: vectors.map(|(name, numbers)| Vector { name, numbers: numbers.into() }).collect(),
                expires: line.expires,
            })
        }
        (_, _) => None,
    };
    Ok((line.version, line.time, Change { namespace: line.namespace, key: line.key, kind, body }))
}

fn write(store: &Store, due: Vec<(Seq, Micros, Change)>, history: bool) -> Result<u64> {
    let count = due.len() as u64;
    if count == 0 {
        return Ok(0);
    }
    if !history {
        let now = clock::now();
        let live = due.into_iter().filter_map(|(_, _, Change { namespace, key, body, .. })| {
            let body = body.filter(|body| body.expires.is_none_or(|expires| now < expires))?;
            Some(Op::Put { namespace, key, body })
        });
        return store
            .write(Batch { ops: live.collect(), conditions: Vec::new() })
            .map(|done| done.written as u64);
    }
    store.replay(due)?;
    Ok(count)
}
