//! Index files that are mapped rather than read.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use limnion_index::{FlatIndex, Source, Verify};
use limnion_types::{Error, ErrorKind, Job, Result};
use memmap2::Mmap;

/// What begins a file of ruvector: its index has to be built anew, so that there is nothing to map.
const RBPX: &[u8] = b"rbpx";

/// Maps the file at `path`.
pub(crate) fn map(path: &Path, job: &Job) -> Result<FlatIndex> {
    let map = mapped(path)?;
    if map.starts_with(RBPX) {
        return FlatIndex::load(path, job);
    }
    FlatIndex::from_bytes(&(Arc::new(map) as Source), Verify::OnFirstUse)
        .map_err(|error| error.within(path.display()))
}

/// A file of a shelf, mapped.
pub(crate) fn open(path: &Path) -> Result<Source> {
    match mapped(path) {
        Ok(map) => Ok(Arc::new(map)),
        Err(error) => Err(Error::new(ErrorKind::Lake, error.message())),
    }
}

fn mapped(path: &Path) -> Result<Mmap> {
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::FileNotFound,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("{} cannot be mapped: {error}", path.display()))
    };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the caller of `load(mmap=True)` or `load_cache` vouches that nobody changes or shortens the file while it is
    // mapped; the documentation says so. Index files are replaced by renaming, which leaves a mapping as it is.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// Maps a file that nobody but limnion writes, and that is only ever replaced by renaming.
pub(crate) fn map_own(path: &Path) -> Result<Source> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::CorruptFile, format!("{} cannot be mapped: {error}", path.display()))
    };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: it lies in the folder of a database, whose files nobody else may touch while it is open.
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Arc::new(map))
}
