//! The files of segments in a folder, with a bounded number of them open for reading.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use limnion_types::Result;

use super::{HEADER, check_header, damaged, header};
use crate::engine::{Place, SegmentInfo};
use crate::folder::failed;

/// How many files are kept open for reading. Reads that are under way may hold some more for a moment.
const MAX_OPEN: usize = 64;

#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    open: RwLock<HashMap<u32, Open>>,
    /// Counts uses, so that the one longest unused is closed first.
    uses: AtomicU64,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    used: AtomicU64,
}

impl Files {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, open: RwLock::default(), uses: AtomicU64::new(0) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, id: u32) -> PathBuf {
        self.folder.join(format!("{id:08}"))
    }

    /// The numbers of the files that are there, and how long each is.
    pub(super) fn list(&self) -> Result<Vec<(u32, u64)>> {
        let told = |error: io::Error| failed("read", &self.folder, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(told)? {
            let entry = entry.map_err(told)?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                found.push((id, entry.metadata().map_err(told)?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn close(&self) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The file of a segment, for reading; its header has been looked at.
    pub(super) fn reading(&self, id: u32) -> Result<Arc<File>> {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        if let Some(open) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            open.used.store(now, Ordering::Relaxed);
            return Ok(open.file.clone());
        }
        let file = Arc::new(self.open_checked(id)?);
        let mut all = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_OPEN {
            let oldest = all.iter().min_by_key(|(_, open)| open.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(&id, _)| id) {
                all.remove(&oldest);
            }
        }
        all.insert(id, Open { file: file.clone(), used: AtomicU64::new(now) });
        Ok(file)
    }

    fn open_checked(&self, id: u32) -> Result<File> {
        let path = self.path(id);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => damaged(&path, "is missing"),
            _ => failed("open", &path, &error),
        })?;
        let header = self.read(&file, Place { segment: id, offset: 0 }, HEADER)?;
        check_header(&header, id, &path)?;
        Ok(file)
    }

    pub(super) fn read(&self, file: &File, place: Place, length: u64) -> Result<Vec<u8>> {
        let path = self.path(place.segment);
        let size = file.metadata().map_err(|error| failed("read", &path, &error))?.len();
        // Before anything is allocated: a length may be damaged too.
        let fits = place.offset.checked_add(length).is_some_and(|end| end <= size);
        let Some(room) = usize::try_from(length).ok().filter(|_| fits) else {
            let how = format!("ends at {size} and should have {length} bytes at {}", place.offset);
            return Err(damaged(&path, &how));
        };
        let mut bytes = vec![0; room];
        read_exact_at(file, &mut bytes, place.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&path, "has become shorter"),
            _ => failed("read", &path, &error),
        })?;
        Ok(bytes)
    }

    pub(super) fn verify(&self, info: &SegmentInfo) -> Result<()> {
        let path = self.path(info.id);
        let file = self.open_checked(info.id)?;
        if self.read(&file, Place { segment: info.id, offset: 0 }, HEADER)? != header(info) {
            return Err(damaged(&path, "does not hold what the database says"));
        }
        let size = file.metadata().map_err(|error| failed("read", &path, &error))?.len();
        if size < info.length {
            let how = format!("has {size} bytes and was committed with {}", info.length);
            return Err(damaged(&path, &how));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Opens a file for appending: a new one, or one that is there.
    pub(super) fn writing(&self, id: u32, new: bool) -> Result<File> {
        let path = self.path(id);
        let opened = OpenOptions::new().write(true).create_new(new).open(&path);
        opened.map_err(|error| failed(if new { "make" } else { "open" }, &path, &error))
    }

    pub(super) fn remove(&self, id: u32) -> Result<()> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Makes the names of new files durable.
    pub(super) fn sync_folder(&self) -> Result<()> {
        // Elsewhere a folder cannot be opened as a file, and names are durable by themselves.
        if cfg!(unix) {
            let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| failed("sync", &self.folder, &error))?;
        }
        Ok(())
    }
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = bytes.get_mut(read..).unwrap_or_default();
                offset += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
        }
    }
    Ok(())
}
