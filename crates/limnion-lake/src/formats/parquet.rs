//! `.parquet`: columns of ids and vectors among others.
//!
//! The reader of columns wants a source that it can keep, and a [`Blob`] is only lent. So one thread reads bytes of the blob,
//! another one decodes them, and the caller's takes the rows: decoding goes on while the rows before are worked on.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use arrow_schema::DataType;
use bytes::Bytes;
use limnion_types::{Error, Job, Result};

use super::batches::{Places, rows_of};
use super::{Blob, Columns, Shape, bad, check_dim, piece};
use crate::backend::Rows;

/// Bytes that are read at once in the beginning, and at most: reads that go on where the last one ended grow.
const LEAST_READ: usize = 64 << 10;
const MOST_READ: usize = 4 << 20;
/// How many stretches of bytes are kept: one for each column that is read, and one for what is between.
const KEPT: usize = 3;

pub(super) fn shape(blob: &dyn Blob, columns: &Columns) -> Result<Shape> {
    with_bytes(blob, |bytes| thread::scope(|scope| spawned(scope, move || shape_of(bytes, columns))?.join()))
}

fn shape_of(bytes: BlobBytes, columns: &Columns) -> Result<Shape> {
    let file = Opened::new(bytes, columns)?;
    let rows = file.rows()?;
    let dim = match file.builder.schema().field(file.places.vector).data_type() {
        DataType::FixedSizeList(_, dim) => {
            let dim = usize::try_from(*dim).map_err(bad)?;
            check_dim(dim)?;
            dim
        }
        _ if rows == 0 => 0,
        _ => {
            let mut dim = None;
            file.decode(1, Some(1), columns, 0, &mut dim, |_| false)?;
            dim.unwrap_or_default()
        }
    };
    Ok(Shape { dim, rows })
}

pub(super) fn read(
    blob: &dyn Blob,
    columns: &Columns,
    first: u64,
    take: &mut dyn FnMut(Rows) -> Result<()>,
    job: &Job,
) -> Result<()> {
    with_bytes(blob, |bytes| {
        thread::scope(|scope| {
            let (decoded, pieces) = mpsc::sync_channel(1);
            let decoder = spawned(scope, move || decode(bytes, columns, first, &decoded))?;
            let mut taken = Ok(());
            for rows in pieces {
                taken = job.check().and_then(|()| take(rows));
                if taken.is_err() {
                    // Leaving drops the receiver, upon which the decoder stops.
                    break;
                }
            }
            taken.and(decoder.join())
        })
    })
}

fn decode(bytes: BlobBytes, columns: &Columns, first: u64, decoded: &SyncSender<Rows>) -> Result<()> {
    let Shape { dim, rows } = shape_of(bytes.clone(), columns)?;
    let file = Opened::new(bytes, columns)?;
    let mut known = (dim > 0).then_some(dim);
    // Levels, and what the decoder keeps besides the numbers, are several times as much.
    let mut count = 0;
    file.decode(piece(4 * dim), None, columns, first, &mut known, |rows| {
        count += rows.ids.len();
        decoded.send(rows).is_ok()
    })?;
    if count != rows {
        return Err(bad(format!("its footer tells of {rows} rows, and there are {count}")));
    }
    Ok(())
}

/// A thread whose panic is an error: bytes that nobody has foreseen must not bring down more than the reading of them.
struct Spawned<'scope, T>(thread::ScopedJoinHandle<'scope, Result<T>>);

fn spawned<'scope, 'env, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, 'env>,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<Spawned<'scope, T>> {
    let thread = thread::Builder::new().name("limnion-parquet".to_owned());
    let failed = |error| bad(format!("no thread to read it with: {error}"));
    thread.spawn_scoped(scope, work).map(Spawned).map_err(failed)
}

impl<T> Spawned<'_, T> {
    fn join(self) -> Result<T> {
        self.0.join().unwrap_or_else(|_| Err(bad("the parquet file is damaged: its reader gave up")))
    }
}

/// A file whose footer has been read.
struct Opened {
    builder: ParquetRecordBatchReaderBuilder<BlobBytes>,
    places: Places,
}

impl Opened {
    fn new(bytes: BlobBytes, columns: &Columns) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(unreadable)?;
        let places = Places::of(builder.schema(), columns).map_err(of_file)?;
        Ok(Self { builder, places })
    }

    fn rows(&self) -> Result<usize> {
        usize::try_from(self.builder.metadata().file_metadata().num_rows()).map_err(bad)
    }

    /// Gives batches to `take` for as long as it wants more.
    fn decode(
        self,
        batch: usize,
        limit: Option<usize>,
        columns: &Columns,
        first: u64,
        dim: &mut Option<usize>,
        mut take: impl FnMut(Rows) -> bool,
    ) -> Result<()> {
        let roots = self.places.id.into_iter().chain([self.places.vector]);
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let mut builder = self.builder.with_projection(mask).with_batch_size(batch);
        if let Some(limit) = limit {
            builder = builder.with_limit(limit);
        }
        let reader = builder.build().map_err(unreadable)?;
        let mut row = first;
        let mut places = None;
        for batch in reader {
            let batch = batch.map_err(unreadable)?;
            let places = match places {
                Some(places) => places,
                None => *places.insert(Places::of(&batch.schema(), columns).map_err(of_file)?),
            };
            let rows = rows_of(&batch, places, columns, row, dim).map_err(of_file)?;
            row += rows.ids.len() as u64;
            if !take(rows) {
                break;
            }
        }
        Ok(())
    }
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    let told = error.to_string();
    if told.contains("Disabled feature at compile time") {
        return bad("its pages are packed in a way that limnion does not unpack")
            .suggest("save it with zstd, snappy, lz4 or no compression");
    }
    bad(format!("the parquet file cannot be read: {told}"))
}

/// An error about columns, as one about a file.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` calls")]
fn of_file(error: Error) -> Error {
    let told = bad(error.message());
    match error.suggestion() {
        Some(suggestion) => told.suggest(suggestion),
        None => told,
    }
}

/// Lends the bytes of a blob to what wants to keep them; an error in reading them comes before what follows from it.
fn with_bytes<R>(blob: &dyn Blob, work: impl FnOnce(BlobBytes) -> Result<R>) -> Result<R> {
    let failure = Arc::new(Mutex::new(None));
    let worked = thread::scope(|scope| {
        let (requests, requested) = mpsc::channel();
        spawned(scope, move || {
            serve(blob, &requested);
            Ok(())
        })?;
        let cache = Arc::default();
        work(BlobBytes { length: blob.len(), requests, cache, failure: Arc::clone(&failure) })
    });
    let failed = held(&failure).take();
    match failed {
        Some(failed) if worked.is_err() => Err(failed),
        _ => worked,
    }
}

type Answer = Result<Vec<u8>>;

/// Answers until nobody can ask any more.
fn serve(blob: &dyn Blob, requests: &Receiver<(Range<u64>, Sender<Answer>)>) {
    for (range, answer) in requests {
        // Whoever does not wait any more has no use for the answer.
        let _ = answer.send(blob.read(range));
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes of a blob, some of them kept.
#[derive(Clone)]
struct BlobBytes {
    length: u64,
    requests: Sender<(Range<u64>, Sender<Answer>)>,
    cache: Arc<Mutex<Vec<Stretch>>>,
    /// The first error in reading.
    failure: Arc<Mutex<Option<Error>>>,
}

/// Bytes from some place on.
struct Stretch {
    start: u64,
    bytes: Bytes,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let within = self.start <= range.start && range.end <= self.end();
        within
            .then(|| self.bytes.slice((range.start - self.start) as usize..(range.end - self.start) as usize))
    }
}

impl BlobBytes {
    fn get(&self, range: &Range<u64>) -> ::parquet::errors::Result<Bytes> {
        if range.end > self.length {
            return Err(ParquetError::EOF(format!(
                "bytes {} to {} of {} are asked for",
                range.start, range.end, self.length
            )));
        }
        let mut cache = held(&self.cache);
        if let Some(bytes) = cache.iter().find_map(|stretch| stretch.get(range)) {
            return Ok(bytes);
        }
        // A stretch that this begins in, or right behind, goes on with twice the length.
        let before = cache
            .iter()
            .position(|stretch| stretch.start <= range.start && range.start <= stretch.end())
            .map(|at| cache.remove(at));
        let length = before.as_ref().map_or(LEAST_READ, |stretch| 2 * stretch.bytes.len());
        let end = range.start.saturating_add(length.clamp(LEAST_READ, MOST_READ) as u64);
        let end = end.max(range.end).min(self.length);
        if cache.len() >= KEPT {
            cache.remove(0);
        }
        let tail = before.and_then(|stretch| stretch.get(&(range.start..stretch.end()))).unwrap_or_default();
        let mut bytes = self.ask(range.start + tail.len() as u64..end)?;
        if !tail.is_empty() {
            bytes.splice(..0, tail);
        }
        let stretch = Stretch { start: range.start, bytes: bytes.into() };
        let bytes = stretch.get(range).ok_or_else(|| ParquetError::EOF("the file ends too early".to_owned()));
        cache.push(stretch);
        bytes
    }

    fn ask(&self, range: Range<u64>) -> ::parquet::errors::Result<Vec<u8>> {
        let gone = || ParquetError::General("the file is not there any more".to_owned());
        let (answer, answered) = mpsc::channel();
        self.requests.send((range, answer)).map_err(|_| gone())?;
        match answered.recv().map_err(|_| gone())? {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                let told = ParquetError::General(error.to_string());
                held(&self.failure).get_or_insert(error);
                Err(told)
            }
        }
    }
}

impl Length for BlobBytes {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for BlobBytes {
    type T = From;

    fn get_read(&self, start: u64) -> ::parquet::errors::Result<From> {
        Ok(From { bytes: self.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ::parquet::errors::Result<Bytes> {
        self.get(&(start..start.saturating_add(length as u64)))
    }
}

/// Reads on from some place.
struct From {
    bytes: BlobBytes,
    at: u64,
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self.at.saturating_add(into.len() as u64).min(self.bytes.length);
        if end <= self.at {
            return Ok(0);
        }
        let bytes = self.bytes.get(&(self.at..end)).map_err(io::Error::other)?;
        for (to, from) in into.iter_mut().zip(&bytes) {
            *to = *from;
        }
        self.at = end;
        Ok(bytes.len())
    }
}
