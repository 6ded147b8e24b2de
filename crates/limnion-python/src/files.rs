//! Index files: read, mapped, and told apart.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use limnion_index::{FlatIndex, GraphIndex, HammingIndex, IvfIndex, Source, Verify};
use limnion_types::{Error, ErrorKind, Job, Result};
use memmap2::Mmap;

use crate::classes::{self, Class};

/// What begins a file of ruvector: its index has to be built anew, so that there is nothing to map.
const RBPX: &[u8] = b"rbpx";
/// The class of an index of lists.
const LISTS: &str = "IvfIndex";
/// The class of a graph.
const GRAPH: &str = "GraphIndex";
/// The class of an index of binary vectors.
const HAMMING: &str = "HammingIndex";

/// Opens the flat index in the file at `path`; `wanted` is the class that asks.
pub(crate) fn flat(path: &Path, mmap: bool, wanted: &str, job: &Job) -> Result<FlatIndex> {
    let index = if mmap { map_flat(path, job) } else { FlatIndex::load(path, job) };
    index.map_err(|error| told_apart(error, path, wanted))
}

fn map_flat(path: &Path, job: &Job) -> Result<FlatIndex> {
    let map = mapped(path)?;
    if map.starts_with(RBPX) {
        return FlatIndex::load(path, job);
    }
    FlatIndex::from_bytes(&(Arc::new(map) as Source), Verify::OnFirstUse)
        .map_err(|error| error.within(path.display()))
}

/// Opens the index of lists in the file at `path`.
pub(crate) fn lists(path: &Path, mmap: bool) -> Result<IvfIndex> {
    let index = if mmap {
        IvfIndex::from_bytes(&(Arc::new(mapped(path)?) as Source), Verify::OnFirstUse)
            .map_err(|error| error.within(path.display()))
    } else {
        IvfIndex::load(path)
    };
    index.map_err(|error| told_apart(error, path, LISTS))
}

/// Opens the graph in the file at `path`.
pub(crate) fn graph(path: &Path, mmap: bool) -> Result<GraphIndex> {
    let index = if mmap {
        GraphIndex::from_bytes(&(Arc::new(mapped(path)?) as Source), Verify::OnFirstUse)
            .map_err(|error| error.within(path.display()))
    } else {
        GraphIndex::load(path)
    };
    index.map_err(|error| told_apart(error, path, GRAPH))
}

/// Opens the index of binary vectors in the file at `path`.
pub(crate) fn hamming(path: &Path, mmap: bool) -> Result<HammingIndex> {
    let index = if mmap {
        HammingIndex::from_bytes(&(Arc::new(mapped(path)?) as Source), Verify::OnFirstUse)
            .map_err(|error| error.within(path.display()))
    } else {
        HammingIndex::load(path)
    };
    index.map_err(|error| told_apart(error, path, HAMMING))
}

/// Names the right class where a file is well, but another's.
fn told_apart(error: Error, path: &Path, wanted: &str) -> Error {
    let right = match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::CorruptFile => class_in(path),
        _ => None,
    };
    let kind = |class: &str| [LISTS, GRAPH, HAMMING].into_iter().position(|other| other == class);
    match right.filter(|right| kind(right) != kind(wanted)) {
        Some(right) => classes::not_of_class(path, wanted, right),
        None => error,
    }
}

/// The class that loads the file at `path`.
fn class_in(path: &Path) -> Option<&'static str> {
    let map: Source = Arc::new(mapped(path).ok()?);
    if (*map).as_ref().starts_with(RBPX) {
        return Some("RabitqPlusIndex");
    }
    if IvfIndex::from_bytes(&map, Verify::OnFirstUse).is_ok() {
        return Some(LISTS);
    }
    if GraphIndex::from_bytes(&map, Verify::OnFirstUse).is_ok() {
        return Some(GRAPH);
    }
    if HammingIndex::from_bytes(&map, Verify::OnFirstUse).is_ok() {
        return Some(HAMMING);
    }
    let index = FlatIndex::from_bytes(&map, Verify::OnFirstUse).ok()?;
    Class::that_fits(index.params()).ok().map(|class| class.name())
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
