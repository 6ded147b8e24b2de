//! The folder of a store, and the lock that keeps a second writer out.
//!
//! ```text
//! store.limn      the database (and store.limn-wal, store.limn-shm while it is open)
//! head            the witness of the newest commit
//! lock            held by the process that writes; says which one
//! segments/       large values and vectors
//! cache/          indexes: deleting them costs time, never data
//! ```
//!
//! The lock is the operating system's, on a file of its own: it ends with the process, however that ends, and nobody who
//! opens the database file and closes it again takes it away (POSIX record locks, which SQLite takes, go that way).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use limnion_types::{Error, ErrorKind, Result};

/// The folder of an open store.
pub(crate) struct Folder {
    root: PathBuf,
    lock: Mutex<Option<File>>,
}

impl Folder {
    /// Makes the folder where it is missing, and takes its lock.
    pub(crate) fn create(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| failed("find", root, &error))?;
        if root.exists() && !root.is_dir() {
            return Err(Error::new(
                ErrorKind::Validation,
                format!("path must be a folder, got the file {}", root.display()),
            )
            .suggest("a database is a folder with several files: name one that may be made"));
        }
        let new: Vec<&Path> = root.ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in [root.clone(), root.join("segments"), root.join("cache")] {
            fs::create_dir_all(&folder).map_err(|error| failed("make", &folder, &error))?;
        }
        // SQLite syncs the folder of its files; what leads there is ours to sync.
        for parent in new.iter().filter_map(|folder| folder.parent()) {
            sync_folder(parent)?;
        }
        let lock = lock(&root)?;
        Ok(Self { root, lock: Mutex::new(Some(lock)) })
    }

    /// A folder that somebody else may be writing to.
    pub(crate) fn visit(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| failed("find", root, &error))?;
        if !root.join("store.limn").is_file() {
            return Err(Error::new(
                ErrorKind::Validation,
                format!("there is no database in {}", root.display()),
            )
            .suggest("open it once without read_only=True, which makes one"));
        }
        Ok(Self { root, lock: Mutex::new(None) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("store.limn")
    }

    pub(crate) fn witness(&self) -> PathBuf {
        self.root.join("head")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    /// Lets the next one in. Closing the file would not do: a process that was forked at this moment has it open too,
    /// until it runs something else.
    pub(crate) fn unlock(&self) {
        if let Some(lock) = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = lock.unlock(); // closing it is the other way
        }
    }

    /// In a forked child: closes its copy of the lock file, without unlocking what the parent holds. Otherwise a child
    /// that outlives its parent would keep the folder locked.
    pub(crate) fn forked(&self) {
        // Nobody holds the mutex but for a moment at open and close; a child must not wait for it even so.
        if let Ok(mut lock) = self.lock.try_lock() {
            lock.take();
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.unlock();
    }
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(locked(root, &mut file)),
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
    }
    let told =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    told.map_err(|error| failed("write", &path, &error))?;
    Ok(file)
}

fn locked(root: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    // On some systems a locked file cannot be read: then the holder stays unnamed.
    let _ = file.read_to_string(&mut holder);
    let holder = holder.trim();
    let error = |holder: &str| {
        Error::new(ErrorKind::DatabaseLocked, format!("{holder} has the database in {} open", root.display()))
    };
    if holder == std::process::id().to_string() {
        return error(&format!("this process (pid {holder})"))
            .suggest("share the handle that is open, or close it first; read_only=True opens a second one");
    }
    let holder = if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
    error(&holder).suggest("close it there; read_only=True opens beside it and sees its commits")
}

/// A new name in a folder is sure once the folder is synced; systems that cannot sync folders need not.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("sync", folder, &error))?;
    }
    Ok(())
}

/// An error of input or output, as the kind that fits.
pub(crate) fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        _ => ErrorKind::StoreIo,
    };
    let told = Error::new(kind, format!("cannot {what} {}: {error}", path.display()));
    match kind {
        ErrorKind::DiskFull => told.suggest("free some space and write again; reads go on"),
        ErrorKind::ReadOnly => {
            told.suggest("open with read_only=True, or choose a folder that can be written")
        }
        _ => told,
    }
}
