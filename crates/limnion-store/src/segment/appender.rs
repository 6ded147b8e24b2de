//! The side of the segments that writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::sync::{Arc, PoisonError};

use limnion_types::Result;

use super::files::write_all_at;
use super::{HEADER, Lie, Segments, header};
use crate::engine::{Place, SegmentInfo};
use crate::folder::failed;

/// A segment that would grow beyond this is left, and another begun. One value may be larger.
const MAX_BYTES: u64 = 256 << 20;
/// Appends are gathered up to so many bytes a segment, and so many in all, before they are written.
const BUFFER: usize = 1 << 20;
const BUFFERS: usize = 32 << 20;
/// How many files are kept open for writing.
const MAX_OPEN: usize = 32;

/// Appends values and vectors. It belongs to the writer: [`Appender::sync`] before a commit, [`Appender::rollback`] where
/// it fails.
#[derive(Debug)]
pub struct Appender {
    segments: Arc<Segments>,
    durable: bool,
    /// [`MAX_BYTES`], but in tests.
    pub(super) max_bytes: u64,
    tails: BTreeMap<u32, Tail>,
    /// The segment that each column is appended to, by namespace.
    columns: HashMap<String, Vec<Column>>,
    /// The segment that values are appended to.
    values: Option<u32>,
    /// The segments that have changed since the last sync.
    changed: BTreeSet<u32>,
    /// Those that have been written to since they were last made durable, where that is not done at once.
    unsettled: BTreeSet<u32>,
    /// Whether there are files whose names have not been made durable.
    new_names: bool,
    buffered: usize,
    next: u32,
    open: HashMap<u32, File>,
}

#[derive(Debug)]
struct Column {
    name: String,
    dim: u32,
    segment: u32,
}

/// The end of a segment.
#[derive(Debug)]
struct Tail {
    /// With what has been appended since the last sync.
    info: SegmentInfo,
    /// As it was at the last sync; `None` where it was not there.
    synced: Option<SegmentInfo>,
    /// What has been appended and not been written.
    buffer: Vec<u8>,
    /// Whether the file has been compared with what the database knows of it.
    verified: bool,
}

impl Appender {
    /// Goes on behind the segments that the database knows. `durable` says whether [`Appender::sync`] waits for the disk.
    ///
    /// # Errors
    /// `StoreIo` where the folder cannot be read or made.
    pub fn open(segments: Arc<Segments>, known: Vec<SegmentInfo>, durable: bool) -> Result<Self> {
        let mut next = known.iter().map(|info| info.id + 1).max().unwrap_or(1);
        if let Lie::Folder(files) = &segments.lie {
            fs::create_dir_all(files.folder()).map_err(|error| failed("make", files.folder(), &error))?;
            // A file that the database does not know is left from a crash: its number is not used again.
            next = files.list()?.iter().map(|(id, _)| id.saturating_add(1)).fold(next, u32::max);
        }
        let tail = |info: SegmentInfo| Tail {
            synced: Some(info.clone()),
            info,
            buffer: Vec::new(),
            verified: false,
        };
        let mut appender = Self {
            segments,
            durable,
            max_bytes: MAX_BYTES,
            tails: known.into_iter().map(|info| (info.id, tail(info))).collect(),
            columns: HashMap::new(),
            values: None,
            changed: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            new_names: false,
            buffered: 0,
            next,
            open: HashMap::new(),
        };
        appender.choose();
        Ok(appender)
    }

    /// Appends a value.
    pub fn append_value(&mut self, bytes: &[u8]) -> Result<Place> {
        let active = self.values;
        let segment = match active {
            Some(segment) if self.takes(segment, bytes.len()) => segment,
            _ => {
                let segment = self.begin("", "", 0)?;
                self.values = Some(segment);
                segment
            }
        };
        self.append(segment, bytes.len(), |buffer| buffer.extend_from_slice(bytes))
    }

    /// Appends a vector to the column of its namespace, name and dimension.
    pub fn append_vector(&mut self, namespace: &str, name: &str, numbers: &[f32]) -> Result<Place> {
        let (dim, length) = (numbers.len() as u32, numbers.len() * 4);
        let columns = self.columns.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let known = columns.iter().find(|column| column.dim == dim && column.name == name);
        let segment = match known.map(|column| column.segment) {
            Some(segment) if self.takes(segment, length) => segment,
            _ => {
                let segment = self.begin(namespace, name, dim)?;
                self.set_column(namespace, name, dim, segment);
                segment
            }
        };
        self.append(segment, length, |buffer| {
            let start = buffer.len();
            buffer.resize(start + length, 0);
            let places = buffer.get_mut(start..).unwrap_or_default().chunks_exact_mut(4);
            for (place, number) in places.zip(numbers) {
                place.copy_from_slice(&number.to_le_bytes());
            }
        })
    }

    /// Whether these bytes lie at a place. What was appended since the last sync does.
    pub(crate) fn holds(&self, place: Place, bytes: &[u8]) -> bool {
        let Some(tail) = self.tails.get(&place.segment) else { return false };
        let synced = tail.synced.as_ref().map_or(0, |synced| synced.length);
        if place.offset >= synced {
            return place.offset + bytes.len() as u64 <= tail.info.length;
        }
        self.segments.read(place, bytes.len() as u64).is_ok_and(|found| found == bytes)
    }

    /// Takes note that one more record refers to bytes that are there already.
    pub fn refer(&mut self, segment: u32, bytes: u64) {
        if let Some(tail) = self.tails.get_mut(&segment) {
            tail.info.live += bytes;
            self.changed.insert(segment);
        }
    }

    /// Takes note that bytes are referred to no more. The database knows already: it was told in the commit that dropped
    /// the versions.
    pub fn release(&mut self, segment: u32, bytes: u64) {
        if let Some(tail) = self.tails.get_mut(&segment) {
            for info in [Some(&mut tail.info), tail.synced.as_mut()].into_iter().flatten() {
                info.live = info.live.saturating_sub(bytes);
            }
        }
    }

    /// Whether further values or vectors go to this segment.
    pub fn is_active(&self, segment: u32) -> bool {
        let mut columns = self.columns.values().flatten();
        self.values == Some(segment) || columns.any(|column| column.segment == segment)
    }

    /// Removes the file of a segment that the database has forgotten.
    pub fn remove(&mut self, segment: u32) -> Result<()> {
        self.forget(segment);
        self.choose();
        self.segments.remove(segment)
    }

    /// Removes the files that the database does not know: they are left from crashes. Gives the bytes they had.
    pub fn sweep(&mut self) -> Result<u64> {
        let mut freed = 0;
        if let Lie::Folder(files) = &self.segments.lie {
            for (id, length) in files.list()? {
                if !self.tails.contains_key(&id) {
                    files.remove(id)?;
                    freed += length;
                }
            }
        }
        Ok(freed)
    }

    /// Makes all that was appended durable, and gives the segments that have changed, for the database to know.
    pub fn sync(&mut self) -> Result<Vec<SegmentInfo>> {
        self.write_buffers()?;
        if self.durable {
            self.settle()?;
        }
        let mut changed = Vec::with_capacity(self.changed.len());
        for id in std::mem::take(&mut self.changed) {
            if let Some(tail) = self.tails.get_mut(&id) {
                tail.synced = Some(tail.info.clone());
                changed.push(tail.info.clone());
            }
        }
        Ok(changed)
    }

    /// Makes durable what weaker durability has left with the operating system. To be called before the database makes
    /// commits durable that refer to it.
    pub fn settle(&mut self) -> Result<()> {
        while let Some(id) = self.unsettled.first().copied() {
            self.with_file(id, "sync", |file| file.sync_data())?;
            self.unsettled.remove(&id);
        }
        if let Lie::Folder(files) = &self.segments.lie
            && self.new_names
        {
            files.sync_folder()?;
            self.new_names = false;
        }
        Ok(())
    }

    /// Forgets what was appended, referred to and begun since the last sync.
    pub fn rollback(&mut self) {
        for id in std::mem::take(&mut self.changed) {
            let Some(tail) = self.tails.get_mut(&id) else { continue };
            self.buffered -= tail.buffer.len();
            tail.buffer.clear();
            match &tail.synced {
                Some(synced) => tail.info = synced.clone(),
                None => {
                    self.forget(id);
                    // What stays behind is swept later.
                    let _ = self.segments.remove(id);
                }
            }
        }
        self.choose();
    }

    /// Whether a segment has room, and is what it should be. Nothing is ever appended to a damaged one.
    fn takes(&mut self, segment: u32, length: usize) -> bool {
        let Some(tail) = self.tails.get_mut(&segment) else { return false };
        if tail.info.length > HEADER && tail.info.length + length as u64 > self.max_bytes {
            return false;
        }
        tail.verified = tail.verified || self.segments.verify(&tail.info).is_ok();
        tail.verified
    }

    /// Begins a segment.
    fn begin(&mut self, namespace: &str, name: &str, dim: u32) -> Result<u32> {
        let id = self.next;
        if let Lie::Folder(files) = &self.segments.lie {
            let file = files.writing(id, true)?;
            self.keep_open(id, file);
            self.new_names = true;
        }
        self.next += 1;
        let info = SegmentInfo {
            id,
            dim,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            length: HEADER,
            live: 0,
        };
        let buffer = header(&info);
        self.buffered += buffer.len();
        self.tails.insert(id, Tail { info, synced: None, buffer, verified: true });
        self.changed.insert(id);
        Ok(id)
    }

    fn append(&mut self, segment: u32, length: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Result<Place> {
        let mut place = Place { segment, offset: 0 };
        let mut full = false;
        if let Some(tail) = self.tails.get_mut(&segment) {
            place.offset = tail.info.length;
            fill(&mut tail.buffer);
            tail.info.length += length as u64;
            tail.info.live += length as u64;
            full = tail.buffer.len() >= BUFFER;
        }
        self.buffered += length;
        self.changed.insert(segment);
        if self.buffered >= BUFFERS {
            self.write_buffers()?;
        } else if full {
            self.write_buffer(segment)?;
        }
        Ok(place)
    }

    fn write_buffers(&mut self) -> Result<()> {
        let changed: Vec<u32> = self.changed.iter().copied().collect();
        changed.into_iter().try_for_each(|id| self.write_buffer(id))
    }

    fn write_buffer(&mut self, id: u32) -> Result<()> {
        let Some(tail) = self.tails.get_mut(&id).filter(|tail| !tail.buffer.is_empty()) else {
            return Ok(());
        };
        let offset = tail.info.length - tail.buffer.len() as u64;
        let mut buffer = std::mem::take(&mut tail.buffer);
        self.buffered -= buffer.len();
        match &self.segments.lie {
            Lie::Folder(_) => {
                self.unsettled.insert(id);
                self.with_file(id, "write", |file| write_all_at(file, &buffer, offset))?;
            }
            Lie::Memory(segments) => {
                let mut segments = segments.write().unwrap_or_else(PoisonError::into_inner);
                let segment = segments.entry(id).or_default().clone();
                drop(segments);
                let mut bytes = segment.write().unwrap_or_else(PoisonError::into_inner);
                bytes.truncate(offset as usize);
                bytes.extend_from_slice(&buffer);
            }
        }
        // Its memory serves again, unless one large value made it large.
        buffer.clear();
        if let Some(tail) = self.tails.get_mut(&id).filter(|_| buffer.capacity() <= 2 * BUFFER) {
            tail.buffer = buffer;
        }
        Ok(())
    }

    fn with_file(
        &mut self,
        id: u32,
        what: &str,
        act: impl FnOnce(&File) -> std::io::Result<()>,
    ) -> Result<()> {
        let Lie::Folder(files) = &self.segments.lie else { return Ok(()) };
        let path = files.path(id);
        if !self.open.contains_key(&id) {
            let file = files.writing(id, false)?;
            self.keep_open(id, file);
        }
        let file = self.open.get(&id);
        file.map_or(Ok(()), act).map_err(|error| failed(what, &path, &error))
    }

    fn keep_open(&mut self, id: u32, file: File) {
        if self.open.len() >= MAX_OPEN {
            // What was written to them is synced through another handle: it is the file that is synced.
            self.open.clear();
        }
        self.open.insert(id, file);
    }

    fn forget(&mut self, id: u32) {
        if let Some(tail) = self.tails.remove(&id) {
            self.buffered -= tail.buffer.len();
        }
        self.open.remove(&id);
        self.changed.remove(&id);
        self.unsettled.remove(&id);
    }

    /// Chooses the newest segment of each column to go on with.
    fn choose(&mut self) {
        self.columns.clear();
        self.values = None;
        let infos: Vec<SegmentInfo> = self.tails.values().map(|tail| tail.info.clone()).collect();
        for info in infos {
            match info.dim {
                0 => self.values = Some(info.id),
                dim => self.set_column(&info.namespace, &info.name, dim, info.id),
            }
        }
    }

    fn set_column(&mut self, namespace: &str, name: &str, dim: u32, segment: u32) {
        let columns = match self.columns.get_mut(namespace) {
            Some(columns) => columns,
            None => self.columns.entry(namespace.to_owned()).or_default(),
        };
        match columns.iter_mut().find(|column| column.dim == dim && column.name == name) {
            Some(column) => column.segment = segment,
            None => columns.push(Column { name: name.to_owned(), dim, segment }),
        }
    }
}
