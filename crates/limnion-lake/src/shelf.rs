//! Where bundles are kept: a folder, or a bucket.

use std::fs::{self, File};
use std::io::{ErrorKind as Io, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limnion_index::{FlatIndex, Source};
use limnion_types::{Error, ErrorKind, Result};

/// Named pieces of bytes, each of which is there as a whole or not at all. Names are letters, digits, dots, `-`, `_`, `%`
/// and `+`.
pub trait Shelf: Send + Sync {
    /// Puts a piece there, in place of one that has the name; on disk, or with the provider, before this returns.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// Puts the file of an index there.
    fn put_index(&self, name: &str, index: &FlatIndex) -> Result<()> {
        self.put(name, &index.to_bytes()?)
    }

    /// The first bytes of a piece, at most `limit`; `None` where there is none of the name.
    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// A piece as bytes that stay as they are.
    fn open(&self, name: &str) -> Result<Option<Source>> {
        Ok(self.get(name, u64::MAX)?.map(|bytes| Arc::new(bytes) as Source))
    }

    /// The names that there are, in order.
    fn list(&self) -> Result<Vec<String>>;

    /// Removes a piece, if it is there.
    fn remove(&self, name: &str) -> Result<()>;

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// How a file becomes bytes that stay as they are: read, or mapped.
pub type OpenFile = fn(&Path) -> Result<Source>;

/// A folder. Files are written under another name, synced, and renamed.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    open: Option<OpenFile>,
}

/// What is being written ends like this.
const PARTIAL: &str = ".partial";

impl Folder {
    /// A folder, which is made when something is put there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), open: None }
    }

    /// The same folder, whose files are opened by `open`: mapped, perhaps.
    pub fn with(self, open: OpenFile) -> Self {
        Self { open: Some(open), ..self }
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        let odd = |byte: u8| !(byte.is_ascii_alphanumeric() || b".-_%+".contains(&byte));
        if name.is_empty() || name.starts_with('.') || name.bytes().any(odd) {
            return Err(Error::new(ErrorKind::Lake, format!("{name:?} cannot be the name of a file")));
        }
        let path = self.path.join(name);
        // A link would lead out of the folder.
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(Error::new(ErrorKind::Lake, format!("{} must be a file", path.display())));
        }
        Ok(path)
    }

    fn replace(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let path = self.file(name)?;
        fs::create_dir_all(&self.path).map_err(|error| failed("make", &self.path, &error))?;
        let (process, count) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let fresh = self.path.join(format!(".{name}.{process}.{count}{PARTIAL}"));
        let placed = fill(&fresh)
            .and_then(|()| fs::rename(&fresh, &path).map_err(|error| failed("rename", &fresh, &error)));
        if placed.is_err() {
            // The error is what counts.
            let _ = fs::remove_file(&fresh);
        }
        placed?;
        sync_folder(&self.path)
    }
}

impl Shelf for Folder {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace(name, |fresh| {
            let written = File::create_new(fresh)
                .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
            written.map_err(|error| failed("write", fresh, &error))
        })
    }

    fn put_index(&self, name: &str, index: &FlatIndex) -> Result<()> {
        self.replace(name, |fresh| index.save(fresh))
    }

    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = self.file(name)?;
        let mut bytes = Vec::new();
        let read = File::open(&path)
            .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == Io::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    fn open(&self, name: &str) -> Result<Option<Source>> {
        let path = self.file(name)?;
        match self.open {
            Some(open) if path.exists() => open(&path).map(Some),
            _ => Ok(self.get(name, u64::MAX)?.map(|bytes| Arc::new(bytes) as Source)),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == Io::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.path, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", &self.path, &error))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            names.extend(
                entry.file_name().into_string().ok().filter(|name| is_file && !name.starts_with('.')),
            );
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.file(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != Io::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync", path, &error))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}

fn failed(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Lake, format!("cannot {verb} {}: {error}", path.display()))
}
