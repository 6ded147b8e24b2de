//! From batches to rows: numbers, times, links, hashes, and what goes out of line.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};
use quick_cache::DefaultHashBuilder;

use crate::cipher::Cipher;
use crate::engine::{Current, FieldIndex, Head, Place, Row, Transaction, Write};
use crate::hash;
use crate::model::{Batch, Body, Condition, Content, Expect, Kind, Micros, Op, Receipt, Record, Seq};
use crate::payload::{Elsewhere, Outlined, Payload};
use crate::query;
use crate::segment::Appender;

/// Values of more bytes lie in segments: a write-ahead log would carry them twice.
pub(crate) const INLINE: usize = 64 << 10;
/// Records of more bytes, and records of larger batches, are not put into the hot tier as they are written: who loads much
/// does not read it at once.
const HOT_BYTES: usize = 256 << 10;
const HOT_BATCH: usize = 100;
/// How many records that seem new are handed to the engine at once.
const RUN: usize = 128;

/// What is to become of a record.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) namespace: Arc<str>,
    pub(crate) key: Arc<str>,
    pub(crate) kind: Kind,
    /// Present where the kind is `Put`.
    pub(crate) body: Option<Body>,
}

/// A commit that has been written into a transaction.
pub(crate) struct Stamped {
    pub(crate) receipt: Receipt,
    /// The commit as the log has it.
    pub(crate) head: Head,
    /// The namespaces that it wrote to.
    pub(crate) namespaces: BTreeSet<Arc<str>>,
    /// The records that had been written before: namespace and key.
    pub(crate) overwritten: Vec<(Arc<str>, Arc<str>)>,
    /// The records that are to be hot.
    pub(crate) records: Vec<Arc<Record>>,
    /// The earliest moment at which something written runs out.
    pub(crate) expires: Option<Micros>,
    /// Bytes of payload.
    pub(crate) bytes: usize,
}

/// What turns batches into rows. It belongs to the writer.
pub(crate) struct Stamper {
    pub(crate) appender: Appender,
    pub(crate) cipher: Option<Arc<Cipher>>,
    /// The declared indexes of each namespace.
    indexes: HashMap<String, Vec<FieldIndex>>,
    /// Whether the last record was new: the next one is likely to be what that was.
    expect_new: bool,
}

impl Stamper {
    pub(crate) fn new(appender: Appender, cipher: Option<Arc<Cipher>>, indexes: &[FieldIndex]) -> Self {
        let mut stamper = Self { appender, cipher, indexes: HashMap::new(), expect_new: true };
        stamper.set_indexes(indexes);
        stamper
    }

    pub(crate) fn set_indexes(&mut self, indexes: &[FieldIndex]) {
        self.indexes.clear();
        for index in indexes {
            self.indexes.entry(index.namespace.clone()).or_default().push(index.clone());
        }
    }

    /// Writes a batch as the commit after `head`, which moves on. An error of kind conflict leaves the transaction as it
    /// was; after any other it must be dropped.
    pub(crate) fn batch(
        &mut self,
        transaction: &mut dyn Transaction,
        head: &mut Head,
        now: Micros,
        batch: Batch,
    ) -> Result<Stamped> {
        for condition in &batch.conditions {
            check(transaction, condition, now)?;
        }
        let mut changes = last_words(batch.ops);
        if changes.iter().any(|change| change.kind == Kind::Deleted) {
            let mut absent = Vec::new();
            for change in &changes {
                let gone = change.kind == Kind::Deleted
                    && !transaction
                        .current(&change.namespace, &change.key)?
                        .is_some_and(|current| is_live(&current, now));
                absent.push(gone);
            }
            let mut absent = absent.into_iter();
            changes.retain(|_| !absent.next().unwrap_or(false));
        }
        self.changes(transaction, head, crate::clock::next(head.time, now), changes)
    }

    /// Writes changes as the commit after `head`, which moves on. None make no commit.
    pub(crate) fn changes(
        &mut self,
        transaction: &mut dyn Transaction,
        head: &mut Head,
        time: Micros,
        changes: Vec<Change>,
    ) -> Result<Stamped> {
        let mut stamped = Stamped {
            receipt: Receipt { version: head.seq, time: head.time, written: changes.len() },
            head: *head,
            namespaces: BTreeSet::new(),
            overwritten: Vec::new(),
            records: Vec::new(),
            expires: None,
            bytes: 0,
        };
        if changes.is_empty() {
            return Ok(stamped);
        }
        let seq = head.seq + 1;
        let hot = changes.len() <= HOT_BATCH;
        let mut hashes = Vec::with_capacity(changes.len());
        let mut changes = changes.into_iter().peekable();
        while let Some(change) = changes.next() {
            let insert = self.expect_new && change.kind == Kind::Put;
            let namespace = change.namespace.clone();
            if !stamped.namespaces.contains(&namespace) {
                stamped.namespaces.insert(namespace.clone());
            }
            let mut run = vec![self.row(transaction, seq, time, change, hot)?];
            while insert
                && run.len() < RUN
                && let Some(next) =
                    changes.next_if(|next| next.kind == Kind::Put && next.namespace == namespace)
            {
                run.push(self.row(transaction, seq, time, next, hot)?);
            }
            let (mut writes, records): (Vec<Write>, Vec<Option<Record>>) = run.into_iter().unzip();
            let inserted = if insert { transaction.insert(&writes)? } else { 0 };
            for write in writes.iter_mut().skip(inserted) {
                let current = transaction.current(&write.namespace, &write.key)?;
                self.expect_new = current.is_none();
                if let Some(current) = current {
                    link(write, current.seq);
                }
                transaction.write(write)?;
            }
            for (write, record) in writes.into_iter().zip(records) {
                let previous = write.row.previous;
                hashes.push(write.hash);
                stamped.bytes += write.row.payload.len();
                if let Some(expires) = write.row.expires {
                    stamped.expires = Some(stamped.expires.map_or(expires, |earliest| earliest.min(expires)));
                }
                if previous > 0 {
                    stamped.overwritten.push((write.namespace, write.key));
                }
                stamped.records.extend(record.map(|record| Arc::new(Record { previous, ..record })));
            }
        }
        stamped.receipt = Receipt { version: seq, time, written: hashes.len() };
        let chain = hash::chain(&head.chain, seq, time, hashes.into_iter());
        *head = Head { seq, time, chain };
        stamped.head = *head;
        transaction.log(head)?;
        Ok(stamped)
    }

    /// The row of a change, as if the record were new, and the record where it is to be hot.
    fn row(
        &mut self,
        transaction: &mut dyn Transaction,
        seq: Seq,
        time: Micros,
        change: Change,
        hot: bool,
    ) -> Result<(Write, Option<Record>)> {
        let Change { namespace, key, kind, body } = change;
        let mut places = Vec::new();
        let (mut plain, mut text, mut fields, mut expires, mut whole) =
            (Vec::new(), None, Vec::new(), None, None);
        if let Some(body) = body {
            expires = body.expires;
            let outlined = match self.cipher {
                Some(_) => Outlined::default(), // segments are not encrypted
                None => self.outline(transaction, &namespace, &body, &mut places)?,
            };
            plain = Payload::encode(&body, &outlined);
            if hot && !places.is_empty() && body.value.len() + plain.len() <= HOT_BYTES {
                whole = Some(Payload::encode(&body, &Outlined::default()));
            }
            if self.cipher.is_none() {
                fields = self.entries(&namespace, &key, &body);
                text = body.text;
            }
        }
        let payload: Arc<[u8]> = match &self.cipher {
            Some(cipher) if kind == Kind::Put => cipher.seal(&namespace, &key, seq, &plain)?.into(),
            _ => plain.as_slice().into(),
        };
        let mut row = Row { seq, time, previous: 0, kind, expires, check: [0; 16], payload, places };
        let (hash, check) = hash::digest(&namespace, &key, &row);
        row.check = check;
        let readable = match (whole, row.places.is_empty(), &self.cipher) {
            (Some(whole), _, _) => Some(whole.into()),
            (None, true, None) => Some(row.payload.clone()),
            (None, true, Some(_)) => Some(plain.into()),
            (None, false, _) => None,
        };
        let record = match readable {
            Some(bytes) if hot && kind == Kind::Put && bytes.len() <= HOT_BYTES => Some(Record {
                namespace: namespace.clone(),
                key: key.clone(),
                version: seq,
                time,
                previous: 0,
                kind,
                expires,
                payload: Payload::decode(bytes)?,
                places: Vec::new(),
            }),
            _ => None,
        };
        Ok((Write { namespace, key, row, hash, text, fields }, record))
    }

    /// Appends to segments what is to lie there.
    fn outline(
        &mut self,
        transaction: &mut dyn Transaction,
        namespace: &str,
        body: &Body,
        places: &mut Vec<Place>,
    ) -> Result<Outlined> {
        let mut outlined = Outlined { value: None, vectors: vec![None; body.vectors.len()] };
        let mut order: Vec<usize> = (0..body.vectors.len()).collect();
        order.sort_by(|&a, &b| {
            let name = |at: usize| body.vectors.get(at).map(|vector| &vector.name);
            name(a).cmp(&name(b))
        });
        for at in order {
            let (Some(vector), Some(hash)) = (body.vectors.get(at), outlined.vectors.get_mut(at)) else {
                continue;
            };
            if vector.numbers.is_empty() {
                continue;
            }
            *hash = Some(hash_of(&vector.numbers));
            places.push(self.appender.append_vector(namespace, &vector.name, &vector.numbers)?);
        }
        if body.value.len() > INLINE {
            let hash = *blake3::hash(&body.value).as_bytes();
            // A place that is damaged must not spoil what is written now.
            let known = transaction.find_value(&hash)?;
            let place = match known.filter(|place| self.appender.holds(*place, &body.value)) {
                Some(place) => {
                    self.appender.refer(place.segment, body.value.len() as u64);
                    place
                }
                None => {
                    let place = self.appender.append_value(&body.value)?;
                    transaction.set_value(&hash, place)?;
                    place
                }
            };
            places.push(place);
            outlined.value = Some(Elsewhere { hash, length: body.value.len() as u64 });
        }
        Ok(outlined)
    }

    /// What declared indexes find a record by.
    fn entries(&self, namespace: &str, key: &str, body: &Body) -> Vec<(u32, Vec<u8>)> {
        let Some(indexes) = self.indexes.get(namespace) else { return Vec::new() };
        let metadata = body.metadata.as_deref();
        let value = (body.content != Content::Bytes).then_some(&*body.value);
        let fields = indexes.iter().map(|index| index.field.as_str());
        let entries = query::entries(namespace, key, metadata, value, fields);
        indexes.iter().zip(entries).filter_map(|(index, entry)| Some((index.id, entry?))).collect()
    }
}

/// Links a row to the version before it.
fn link(write: &mut Write, previous: Seq) {
    write.row.previous = previous;
    let (hash, check) = hash::digest(&write.namespace, &write.key, &write.row);
    write.hash = hash;
    write.row.check = check;
}

fn hash_of(numbers: &[f32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = [0u8; 4096];
    for numbers in numbers.chunks(1024) {
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        hasher.update(bytes.get(..numbers.len() * 4).unwrap_or_default());
    }
    *hasher.finalize().as_bytes()
}

fn is_live(current: &Current, now: Micros) -> bool {
    current.kind == Kind::Put && current.expires.is_none_or(|expires| now < expires)
}

fn check(transaction: &mut dyn Transaction, condition: &Condition, now: Micros) -> Result<()> {
    let Condition { namespace, key, expect } = condition;
    let live = transaction.current(namespace, key)?.filter(|current| is_live(current, now));
    let told = match (expect, live) {
        (Expect::Absent, None) | (Expect::Present, Some(_)) => return Ok(()),
        (Expect::Version(version), Some(current)) if current.seq == *version => return Ok(()),
        (Expect::Absent, Some(current)) => {
            format!("{namespace}/{key} was to be absent, and has version {}", current.seq)
        }
        (Expect::Present, None) => format!("{namespace}/{key} was to be there, and is not"),
        (Expect::Version(version), Some(current)) => {
            format!("{namespace}/{key} was to be at version {version}, and is at {}", current.seq)
        }
        (Expect::Version(version), None) => {
            format!("{namespace}/{key} was to be at version {version}, and is not there")
        }
    };
    Err(Error::new(ErrorKind::Conflict, told)
        .suggest("nothing was written: read the record again, and decide anew"))
}

/// The changes of a batch; where a key comes twice, the last one, in the place of the first.
fn last_words(ops: Vec<Op>) -> Vec<Change> {
    let single = ops.len() == 1;
    let mut changes: Vec<Change> = Vec::with_capacity(ops.len());
    let room = if single { 0 } else { ops.len() };
    let mut places: HashMap<(Arc<str>, Arc<str>), usize, DefaultHashBuilder> =
        HashMap::with_capacity_and_hasher(room, DefaultHashBuilder::default());
    for op in ops {
        let change = match op {
            Op::Put { namespace, key, body } => Change { namespace, key, kind: Kind::Put, body: Some(body) },
            Op::Delete { namespace, key } => Change { namespace, key, kind: Kind::Deleted, body: None },
        };
        if !single {
            let name = (change.namespace.clone(), change.key.clone());
            if let Some(earlier) = places.insert(name.clone(), changes.len()) {
                places.insert(name, earlier);
                if let Some(place) = changes.get_mut(earlier) {
                    *place = change;
                }
                continue;
            }
        }
        changes.push(change);
    }
    changes
}
