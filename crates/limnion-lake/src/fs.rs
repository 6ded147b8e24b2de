//! Vectors in a folder of files.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::backend::{Backend, Description, Generation, Ids, Rows, Sink};
use crate::formats::{self, Blob, Columns, Format, RowsWriter, Seen, Shape};
use crate::names;

/// What whoever writes into a folder holds meanwhile.
const LOCK: &str = ".limnion-lock";
/// How the names of files begin and end that are not complete yet.
const FRESH: (&str, &str) = (".limnion-", ".tmp");
/// What a file of ids beside an array ends with, before its own ending.
const IDS: &str = ".ids";
/// How often a file that is replaced all the time is opened.
const OPENINGS: usize = 100;
/// Bytes of a file's name, on the systems that there are.
const LONGEST: usize = 255;

/// How a folder is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsOptions {
    /// Which columns Parquet files keep ids and vectors in.
    pub columns: Columns,
    /// Whether a generation is a BLAKE3 of all bytes, for which they are all read each time that it is asked for. Otherwise
    /// it is size, time of change in nanoseconds and number of the file, by which two changes that leave the size alone can
    /// look like one where the clock of the file system is coarse. Files of [`Format::Rows`] are told apart anyway.
    pub digest: bool,
}

/// Collections in the files of a folder: `docs.npy`, `docs.fvecs`, `docs.parquet`, `docs.ruvec` and `docs.rows` are
/// collection `docs`, and so is a folder `docs` of Parquet files, in the order of their names.
///
/// In names of files, what is no letter of ASCII, no digit, no `-`, `_` or inner dot is `%XX` for each byte: collection `my docs`
/// is `my%20docs.parquet`. Files of other names are not looked at. Links are never followed. Ids of an array are its row
/// numbers, or those in `docs.ids.npy`.
///
/// [`FsBackend::upsert`] and [`FsBackend::delete`] write `.rows` files, which other processes may read and write at the same time:
/// a reader sees a file as it was before or after a write, and no write is lost. Each of them writes the whole file.
///
/// ```
/// use limnion_lake::{Backend, FsBackend, FsOptions};
///
/// let folder = tempfile::tempdir()?;
/// let backend = FsBackend::new("disk", folder.path(), FsOptions::default())?;
/// backend.upsert("docs", &[1, 2], &[1.0, 0.0, 0.0, 1.0], 2)?;
/// assert_eq!(backend.delete("docs", &[2, 3])?, 1);
/// assert_eq!(backend.collections()?, ["docs"]);
/// assert_eq!(backend.describe("docs")?.rows, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FsBackend {
    name: String,
    folder: PathBuf,
    options: FsOptions,
    /// Where collections were when they were last looked for.
    known: Mutex<HashMap<String, Place>>,
}

/// Where a collection lies.
#[derive(Debug, Clone)]
enum Place {
    File(String, Format),
    Folder(String),
}

impl Place {
    fn name(&self) -> &str {
        match self {
            Self::File(name, _) | Self::Folder(name) => name,
        }
    }
}

/// A collection whose files are open, or are known.
enum Source {
    One { file: OpenFile, format: Format, ids: Option<OpenFile> },
    Many { folder: PathBuf, parts: Vec<Part> },
}

/// One file of a folder, and what it was when the folder was looked through.
#[derive(PartialEq)]
struct Part {
    name: String,
    mark: String,
}

impl FsBackend {
    /// The collections in a folder, which must be there.
    ///
    /// # Errors
    /// `Backend` where the folder is not there, or is none.
    pub fn new(name: impl Into<String>, folder: impl AsRef<Path>, options: FsOptions) -> Result<Self> {
        let (name, folder) = (name.into(), folder.as_ref());
        names::check_name("name", &name)?;
        let failed = |error: &dyn std::fmt::Display| {
            names::failed(&name, format!("cannot open folder {}: {error}", folder.display()))
        };
        let canonical = match folder.canonicalize() {
            Ok(canonical) if canonical.is_dir() => canonical,
            Ok(_) => return Err(failed(&"it is a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failed(&"it is not there").suggest("make it first"));
            }
            Err(error) => return Err(failed(&error)),
        };
        Ok(Self { name, folder: canonical, options, known: Mutex::default() })
    }

    /// The folder, without links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts rows into a collection, which is made by that: new ids are added, known ones get another vector. All of
    /// them, or none on error. On disk when it returns.
    ///
    /// # Errors
    /// `DimensionMismatch` for vectors of another length than those that are there, `InvalidArgument` for vectors that are
    /// not finite or not as many as the ids, `DuplicateId`, `InvalidType` where the collection has names for ids, and
    /// `Backend` where it lies in a file of another format or cannot be written.
    pub fn upsert(&self, collection: &str, ids: &[u64], vectors: &[f32], dim: usize) -> Result<()> {
        self.upsert_rows(
            collection,
            &Rows { ids: Ids::Numbers(ids.to_vec()), vectors: vectors.to_vec() },
            dim,
        )
    }

    /// The same with ids of either kind.
    ///
    /// # Errors
    /// As [`FsBackend::upsert`].
    pub fn upsert_rows(&self, collection: &str, rows: &Rows, dim: usize) -> Result<()> {
        names::check_collection(collection)?;
        check(rows, dim)?;
        let target = self.target(collection)?;
        let _lock = self.lock()?;
        let old = self.writable(collection)?;
        let file = file_name(&target);
        if let Some(old) = &old {
            let (shape, named) = formats::kind(old).map_err(|error| self.within(&file, error))?;
            if shape.dim != dim {
                return Err(Error::new(
                    ErrorKind::DimensionMismatch,
                    format!(
                        "vectors must have {} dimensions like collection {collection:?}, got {dim}",
                        shape.dim
                    ),
                ));
            }
            let names = matches!(rows.ids, Ids::Names(_));
            if named.is_some_and(|named| named != names) && !rows.ids.is_empty() {
                return Err(formats::mixed());
            }
        }
        let places = Lookup::of(&rows.ids);
        let mut done = vec![false; rows.ids.len()];
        let written = replace(&target, dim, |writer| {
            let mut merge = |mut there: Rows| {
                for (row, vector) in there.vectors.chunks_exact_mut(dim).enumerate() {
                    let Some(at) = places.get(&there.ids, row) else { continue };
                    if let Some(new) = rows.vectors.get(at * dim..(at + 1) * dim) {
                        vector.copy_from_slice(new);
                    }
                    if let Some(done) = done.get_mut(at) {
                        *done = true;
                    }
                }
                writer.push(there)
            };
            if let Some(old) = &old {
                formats::read(Format::Rows, old, &self.options.columns, &mut merge, &Job::new())?;
            }
            writer.push(only(rows, dim, |row| done.get(row) == Some(&false)))?;
            Ok(Some(()))
        });
        written.map(|_| ()).map_err(|error| self.within(&file, error))
    }

    /// Removes the rows with these ids, as far as they are there, and says how many were. On disk when it returns.
    ///
    /// # Errors
    /// `UnknownCollection`, and `Backend` where it lies in a file of another format or cannot be written.
    pub fn delete(&self, collection: &str, ids: &[u64]) -> Result<usize> {
        self.delete_rows(collection, &Ids::Numbers(ids.to_vec()))
    }

    /// The same with ids of either kind.
    ///
    /// # Errors
    /// As [`FsBackend::delete`].
    pub fn delete_rows(&self, collection: &str, ids: &Ids) -> Result<usize> {
        let target = self.target(collection)?;
        let _lock = self.lock()?;
        let old = self.writable(collection)?.ok_or_else(|| self.unknown(collection))?;
        let file = file_name(&target);
        let removed = formats::kind(&old).and_then(|(Shape { dim, .. }, _)| {
            let gone = Lookup::of(ids);
            replace(&target, dim, |writer| {
                let mut removed = 0;
                let mut sift = |there: Rows| {
                    let left = only(&there, dim, |row| gone.get(&there.ids, row).is_none());
                    removed += there.ids.len() - left.ids.len();
                    writer.push(left)
                };
                formats::read(Format::Rows, &old, &self.options.columns, &mut sift, &Job::new())?;
                Ok((removed > 0).then_some(removed))
            })
        });
        Ok(removed.map_err(|error| self.within(&file, error))?.unwrap_or_default())
    }

    /// Removes a collection with its file, and says whether it was there.
    ///
    /// # Errors
    /// `Backend` where it lies in a file of another format, which is not for limnion to remove.
    pub fn drop_collection(&self, collection: &str) -> Result<bool> {
        let target = self.target(collection)?;
        let _lock = self.lock()?;
        if self.writable(collection)?.is_none() {
            return Ok(false);
        }
        let removed = fs::remove_file(&target).and_then(|()| sync_folder(&self.folder));
        removed.map(|()| true).map_err(|error| self.io(&file_name(&target), &error))
    }

    /// The file that a collection is written to.
    fn target(&self, collection: &str) -> Result<PathBuf> {
        let name = format!("{}.{}", names::encode(collection), Format::Rows.ending());
        if name.len() > LONGEST {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "collection must be at most {LONGEST} bytes long as the name of a file, got {} for {collection:?}",
                    name.len()
                ),
            )
            .suggest("signs that are not ASCII letters or digits take three bytes each"));
        }
        Ok(self.folder.join(name))
    }

    fn lock(&self) -> Result<File> {
        lock(&self.folder).map_err(|error| self.io(LOCK, &error))
    }

    /// The file of a collection that is about to be written; `None` where there is none of that name.
    fn writable(&self, collection: &str) -> Result<Option<OpenFile>> {
        match self.find(collection) {
            Ok(Place::File(name, Format::Rows)) => self.open_file(&self.folder.join(name)).map(Some),
            Ok(other) => Err(names::failed(
                &self.name,
                format!(
                    "collection {collection:?} lies in {:?}, and only .rows files are written",
                    other.name()
                ),
            )
            .suggest("write to a collection of another name, or to the file with what has made it")),
            Err(error) if error.kind() == ErrorKind::UnknownCollection => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of the system about a file.
    fn io(&self, file: &str, error: &io::Error) -> Error {
        names::failed(&self.name, format!("{file:?}: {error}"))
    }

    /// An error about what is in a file, which says now in which.
    fn within(&self, file: &str, error: Error) -> Error {
        if error.kind() != ErrorKind::Backend {
            return error;
        }
        names::retold(&self.name, format_args!("{file:?}"), &error)
    }

    fn changed(&self, file: &str) -> Error {
        names::changed(&self.name, format_args!("{file:?} has"))
            .suggest("replace files by renaming: then a reader sees the one or the other")
    }

    /// An error, or that the collection is gone where that is why.
    fn perhaps_gone(&self, collection: &str, error: Error) -> Error {
        match self.find(collection) {
            Err(gone) if gone.kind() == ErrorKind::UnknownCollection => gone,
            _ => error,
        }
    }

    fn unknown(&self, collection: &str) -> Error {
        names::unknown_collection(&self.name, collection, &self.collections().unwrap_or_default())
    }

    /// Looks for a collection, of which there may be one file only.
    fn find(&self, collection: &str) -> Result<Place> {
        self.known().remove(collection);
        if names::check_collection(collection).is_err() {
            return Err(self.unknown(collection));
        }
        let encoded = names::encode(collection);
        let mut places = Vec::new();
        let mut links = Vec::new();
        for format in Format::ALL {
            let name = format!("{encoded}.{}", format.ending());
            if format == Format::Npy && collection.ends_with(IDS) {
                continue;
            }
            match self.look(&self.folder.join(&name))? {
                Some(kind) if kind.is_symlink() => links.push(name),
                Some(kind) if kind.is_file() => places.push(Place::File(name, format)),
                _ => {}
            }
        }
        match self.look(&self.folder.join(&encoded))? {
            Some(kind) if kind.is_symlink() => links.push(encoded),
            Some(kind) if kind.is_dir() && !self.part_names(&self.folder.join(&encoded))?.is_empty() => {
                places.push(Place::Folder(encoded));
            }
            _ => {}
        }
        match (places.as_slice(), links.first()) {
            ([place], _) => {
                self.known().insert(collection.to_owned(), place.clone());
                Ok(place.clone())
            }
            ([], None) => Err(self.unknown(collection)),
            ([], Some(link)) => Err(self.link(link)),
            (several, _) => {
                let several: Vec<String> =
                    several.iter().map(|place| format!("{:?}", place.name())).collect();
                let told = several.join(" and ");
                Err(names::failed(&self.name, format!("collection {collection:?} lies in {told}"))
                    .suggest("keep one of them, or give them names that differ before the ending"))
            }
        }
    }

    fn link(&self, name: &str) -> Error {
        names::failed(&self.name, format!("{name:?} is a link, and links are not followed"))
            .suggest("put the file itself into the folder, or a hard link of it")
    }

    /// What lies at a path, of which a link is none; `None` where nothing does.
    fn look(&self, path: &Path) -> Result<Option<fs::FileType>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(metadata.file_type())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.io(&file_name(path), &error)),
        }
    }

    /// The names of the Parquet files in a folder, in order.
    fn part_names(&self, folder: &Path) -> Result<Vec<String>> {
        let failed = |error: io::Error| self.io(&file_name(folder), &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with(['.', '_']) && Format::of(name) == Some(Format::Parquet) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The Parquet files of a folder as they are now.
    fn parts(&self, folder: &Path) -> Result<Vec<Part>> {
        if folder.canonicalize().map_err(|error| self.io(&file_name(folder), &error))? != folder {
            return Err(self.link(&file_name(folder)));
        }
        let mark = |name: String| {
            let mark = self.mark_at(&folder.join(&name), Format::Parquet)?;
            Ok(Part { mark, name })
        };
        self.part_names(folder)?.into_iter().map(mark).collect()
    }

    /// Opens a plain file, and nothing that a link leads to.
    fn open_file(&self, path: &Path) -> Result<OpenFile> {
        let failed = |error: io::Error| self.io(&file_name(path), &error);
        for _ in 0..OPENINGS {
            let expected = self.plain(path)?;
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            // Another file now lies there: a new one, or what a link leads to.
            if identity(&metadata) == identity(&expected) {
                return Ok(OpenFile {
                    length: metadata.len(),
                    file: Mutex::new(file),
                    path: path.to_owned(),
                });
            }
        }
        Err(self.changed(&file_name(path)))
    }

    /// What the system knows about a plain file.
    fn plain(&self, path: &Path) -> Result<Metadata> {
        let metadata = fs::symlink_metadata(path).map_err(|error| self.io(&file_name(path), &error))?;
        if metadata.is_symlink() {
            return Err(self.link(&file_name(path)));
        }
        if !metadata.is_file() {
            return Err(names::failed(&self.name, format!("{:?} is no file", file_name(path))));
        }
        Ok(metadata)
    }

    /// Opens what a collection is in, and says what it is.
    fn opened(&self, collection: &str) -> Result<(Place, Source, Generation)> {
        let place = self.find(collection)?;
        let source = self.open(&place).map_err(|error| self.perhaps_gone(collection, error))?;
        let generation = self.generation_of(&source)?;
        Ok((place, source, generation))
    }

    fn open(&self, place: &Place) -> Result<Source> {
        let path = self.folder.join(place.name());
        match place {
            Place::Folder(_) => Ok(Source::Many { parts: self.parts(&path)?, folder: path }),
            Place::File(_, format) => {
                let file = self.open_file(&path)?;
                let ids = match self.ids_path(place) {
                    Some(path) if self.look(&path)?.is_some() => Some(self.open_file(&path)?),
                    _ => None,
                };
                Ok(Source::One { file, format: *format, ids })
            }
        }
    }

    /// Where the ids of an array would be.
    fn ids_path(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::File(name, Format::Npy) => {
                Some(self.folder.join(format!("{}{IDS}.npy", name.strip_suffix(".npy")?)))
            }
            _ => None,
        }
    }

    /// What an open file is: another one after every change.
    fn mark(&self, file: &OpenFile, format: Format) -> Result<String> {
        if self.options.digest {
            return Ok(format!("blake3:{}", file.digest().map_err(|error| self.io(&file.name(), &error))?));
        }
        let metadata = file.metadata().map_err(|error| self.io(&file.name(), &error))?;
        if metadata.len() != file.length {
            return Err(self.changed(&file.name()));
        }
        let stamp = stamp(&metadata);
        if format != Format::Rows {
            return Ok(stamp);
        }
        let instance = formats::instance(file).map_err(|error| self.within(&file.name(), error))?;
        Ok(format!("{stamp}-{instance:032x}"))
    }

    /// The same of a file that is not open.
    fn mark_at(&self, path: &Path, format: Format) -> Result<String> {
        if self.options.digest || format == Format::Rows {
            return self.mark(&self.open_file(path)?, format);
        }
        Ok(stamp(&self.plain(path)?))
    }

    /// The generation of files that are open.
    fn generation_of(&self, source: &Source) -> Result<Generation> {
        match source {
            Source::One { file, format, ids } => {
                let ids = ids.as_ref().map(|ids| self.mark(ids, Format::Npy)).transpose()?;
                Ok(of_marks(self.mark(file, *format)?, ids))
            }
            Source::Many { folder, .. } => Ok(of_parts(&self.parts(folder)?)),
        }
    }

    /// The generation of what lies at a place, by as little as can be.
    fn generation_at(&self, place: &Place) -> Result<Generation> {
        let path = self.folder.join(place.name());
        match place {
            Place::Folder(_) => Ok(of_parts(&self.parts(&path)?)),
            Place::File(_, format) => {
                let ids = match self.ids_path(place) {
                    Some(path) if self.look(&path)?.is_some() => Some(self.mark_at(&path, Format::Npy)?),
                    _ => None,
                };
                Ok(of_marks(self.mark_at(&path, *format)?, ids))
            }
        }
    }

    fn shape_of(&self, source: &Source) -> Result<Shape> {
        let shape = |file: &OpenFile, format| {
            formats::shape(format, file, &self.options.columns)
                .map_err(|error| self.within(&file.name(), error))
        };
        match source {
            Source::One { file, format, .. } => shape(file, *format),
            Source::Many { folder, parts } => {
                let mut all = Shape { dim: 0, rows: 0 };
                for part in parts {
                    let file = self.open_file(&folder.join(&part.name))?;
                    let Shape { dim, rows } = shape(&file, Format::Parquet)?;
                    if all.dim != 0 && dim != 0 && dim != all.dim {
                        let problem = format!("has {dim} dimensions, the files before it {}", all.dim);
                        return Err(names::failed(&self.name, format!("{:?} {problem}", part.name)));
                    }
                    all.dim = all.dim.max(dim);
                    all.rows = all.rows.saturating_add(rows);
                }
                Ok(all)
            }
        }
    }

    /// What files are that are open, given their generation.
    fn description(&self, place: &Place, source: &Source, generation: Generation) -> Result<Description> {
        let Shape { dim, rows } = self.shape_of(source)?;
        let source = uri(&self.folder.join(place.name()));
        Ok(Description { dim, rows, generation, metric: None, source })
    }

    fn read(
        &self,
        source: &Source,
        shape: Shape,
        take: &mut dyn FnMut(Rows) -> Result<()>,
        job: &Job,
    ) -> Result<()> {
        let columns = &self.options.columns;
        match source {
            Source::One { file, format, ids: None } => formats::read(*format, file, columns, take, job)
                .map_err(|error| self.within(&file.name(), error)),
            Source::One { file, format, ids: Some(beside) } => {
                let ids =
                    formats::read_ids_npy(beside).map_err(|error| self.within(&beside.name(), error))?;
                if ids.len() != shape.rows {
                    let (rows, ids) = (shape.rows, ids.len());
                    let problem = format!("has {ids} ids, and {:?} has {rows} rows", file.name());
                    return Err(names::failed(&self.name, format!("{:?} {problem}", beside.name())));
                }
                let mut left = ids.as_slice();
                let mut with_ids = |rows: Rows| {
                    let (now, later) = left.split_at_checked(rows.ids.len()).unwrap_or((left, &[]));
                    left = later;
                    take(Rows { ids: Ids::Numbers(now.to_vec()), vectors: rows.vectors })
                };
                formats::read(*format, file, columns, &mut with_ids, job)
                    .map_err(|error| self.within(&file.name(), error))
            }
            Source::Many { folder, parts } => {
                let mut first = 0;
                for part in parts {
                    let file = self.open_file(&folder.join(&part.name))?;
                    if self.mark(&file, Format::Parquet)? != part.mark {
                        return Err(self.changed(&part.name));
                    }
                    let mut rows = 0;
                    let mut counted = |piece: Rows| {
                        rows += piece.ids.len() as u64;
                        take(piece)
                    };
                    formats::read_from(Format::Parquet, &file, columns, first, &mut counted, job)
                        .map_err(|error| self.within(&part.name, error))?;
                    if self.mark(&file, Format::Parquet)? != part.mark {
                        return Err(self.changed(&part.name));
                    }
                    first += rows;
                }
                Ok(())
            }
        }
    }

    /// Whether files that were read are still those of that generation.
    fn is_still(&self, place: &Place, source: &Source, generation: &Generation) -> bool {
        let same = self.generation_of(source).is_ok_and(|now| now == *generation);
        // Of two files each is replaced by itself: they belong together only if neither has been, meanwhile.
        let pair = matches!(source, Source::One { ids: Some(_), .. });
        same && (!pair || self.generation_at(place).is_ok_and(|now| now == *generation))
    }
}

impl Backend for FsBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn collections(&self) -> Result<Vec<String>> {
        let failed = |error: io::Error| self.io(&file_name(&self.folder), &error);
        let mut collections = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // A file that has gone since is none.
            let Ok(kind) = entry.file_type() else { continue };
            let encoded = if kind.is_file() {
                match (Format::of(name), name.rsplit_once('.')) {
                    (Some(Format::Npy), Some((stem, _))) if stem.ends_with(IDS) => continue,
                    (Some(_), Some((stem, _))) => stem,
                    _ => continue,
                }
            } else if kind.is_dir() && !name.starts_with('.') {
                name
            } else {
                continue;
            };
            let Some(collection) = names::decode(encoded) else { continue };
            if names::check_collection(&collection).is_err()
                || kind.is_dir() && self.part_names(&entry.path()).is_ok_and(|parts| parts.is_empty())
            {
                continue;
            }
            collections.insert(collection);
        }
        Ok(collections.into_iter().collect())
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let (place, source, generation) = self.opened(collection)?;
        let described = self.description(&place, &source, generation.clone());
        if self.is_still(&place, &source, &generation) {
            return described;
        }
        Err(self.changed(place.name()))
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        let known = self.known().get(collection).cloned();
        if let Some(Ok(generation)) = known.map(|place| self.generation_at(&place)) {
            return Ok(generation);
        }
        let place = self.find(collection)?;
        self.generation_at(&place).map_err(|error| self.perhaps_gone(collection, error))
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let (place, source, generation) = self.opened(collection)?;
        let mut refused = None;
        let read = self.description(&place, &source, generation.clone()).and_then(|description| {
            let shape = Shape { dim: description.dim, rows: description.rows };
            let mut take = |taken: Result<()>| taken.inspect_err(|error| refused = Some(error.clone()));
            take(sink.begin(&description))?;
            self.read(&source, shape, &mut |rows| take(sink.push(rows)), job)
        });
        // What the sink has to say, or whoever waits, comes before what the files are.
        if let Some(refused) = refused {
            return Err(refused);
        }
        job.check()?;
        if self.is_still(&place, &source, &generation) { read } else { Err(self.changed(place.name())) }
    }
}

/// A file that is read in any order.
struct OpenFile {
    file: Mutex<File>,
    length: u64,
    path: PathBuf,
}

impl OpenFile {
    fn name(&self) -> String {
        file_name(&self.path)
    }

    fn held(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.held().metadata()
    }

    fn digest(&self) -> io::Result<blake3::Hash> {
        let mut file = self.held();
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut *file, &mut hasher)?;
        Ok(hasher.finalize())
    }
}

impl Blob for OpenFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        let short = || {
            let message = "it is shorter now: it has changed while it was read";
            Error::new(ErrorKind::Backend, message).passing()
        };
        if range.end > self.length {
            return Err(short());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| short())?);
        let mut file = self.held();
        let read = file
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| Read::by_ref(&mut *file).take(length).read_to_end(&mut bytes));
        match read {
            Ok(read) if read as u64 == length => Ok(bytes),
            Ok(_) => Err(short()),
            Err(error) => Err(Error::new(ErrorKind::Backend, error.to_string())),
        }
    }
}

/// Where ids are among others.
enum Lookup<'a> {
    Numbers(HashMap<u64, usize>),
    Names(HashMap<&'a str, usize>),
}

impl<'a> Lookup<'a> {
    fn of(ids: &'a Ids) -> Self {
        match ids {
            Ids::Numbers(ids) => Self::Numbers(ids.iter().copied().zip(0..).collect()),
            Ids::Names(ids) => Self::Names(ids.iter().map(|id| &**id).zip(0..).collect()),
        }
    }

    /// Where the id of a row is.
    fn get(&self, ids: &Ids, row: usize) -> Option<usize> {
        match (self, ids) {
            (Self::Numbers(places), Ids::Numbers(ids)) => places.get(ids.get(row)?).copied(),
            (Self::Names(places), Ids::Names(ids)) => places.get(&**ids.get(row)?).copied(),
            _ => None,
        }
    }
}

/// Some of the rows.
fn only(rows: &Rows, dim: usize, mut wanted: impl FnMut(usize) -> bool) -> Rows {
    let keep: Vec<bool> = (0..rows.ids.len()).map(&mut wanted).collect();
    fn kept<'a, T>(items: impl Iterator<Item = T> + 'a, keep: &'a [bool]) -> impl Iterator<Item = T> + 'a {
        items.zip(keep).filter(|(_, keep)| **keep).map(|(item, _)| item)
    }
    let ids = match &rows.ids {
        Ids::Numbers(ids) => Ids::Numbers(kept(ids.iter().copied(), &keep).collect()),
        Ids::Names(ids) => Ids::Names(kept(ids.iter().map(Arc::clone), &keep).collect()),
    };
    Rows { ids, vectors: kept(rows.vectors.chunks_exact(dim.max(1)), &keep).flatten().copied().collect() }
}

/// Rows that can be indexed.
pub(crate) fn check(rows: &Rows, dim: usize) -> Result<()> {
    match &rows.ids {
        Ids::Numbers(ids) => names::check_rows(ids, &rows.vectors, dim),
        Ids::Names(ids) => {
            let numbers: Vec<u64> = (0..ids.len() as u64).collect();
            names::check_rows(&numbers, &rows.vectors, dim)?;
            Seen::default().add(&rows.ids)
        }
    }
}

/// Writes rows to a file of [`Format::Rows`], atomically: a file that is already there stays as it is until the new one is
/// complete and on disk. Says how many they were. A file `.limnion-lock` stays beside it, by which writers wait for each other.
///
/// # Errors
/// `Io`; `DimensionMismatch`, `DuplicateId`, `InvalidType` for ids of both kinds, `InvalidArgument` for numbers that are not
/// finite; and those that come from `rows`.
///
/// ```
/// use limnion_lake::{Ids, Rows, write_rows};
///
/// let folder = tempfile::tempdir()?;
/// let rows = Rows { ids: Ids::Names(vec!["a".into(), "b".into()]), vectors: vec![1.0, 0.0, 0.0, 1.0] };
/// assert_eq!(write_rows(&folder.path().join("docs.rows"), 2, [Ok(rows)])?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_rows(path: &Path, dim: usize, rows: impl IntoIterator<Item = Result<Rows>>) -> Result<usize> {
    let io = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Io, format!("cannot write {}: {error}", path.display()))
    };
    let folder = parent(path);
    let _lock = lock(folder).map_err(|error| io(&error))?;
    let written = replace(path, dim, |writer| {
        let mut seen = Seen::default();
        let mut count = 0;
        for rows in rows {
            let rows = rows?;
            seen.add(&rows.ids)?;
            count += rows.ids.len();
            writer.push(rows)?;
        }
        Ok(Some(count))
    });
    match written {
        Err(error) if error.kind() == ErrorKind::Backend => Err(io(&error)),
        written => Ok(written?.unwrap_or_default()),
    }
}

/// A file that is not complete, and goes unless it has been placed.
struct Fresh {
    path: PathBuf,
    placed: bool,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.placed {
            // It is of no use to anyone; that it may be left behind is not the error to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Puts a new file in the place of another one, or leaves it where `fill` says `None`. Whoever calls holds the lock.
fn replace<R>(
    target: &Path,
    dim: usize,
    fill: impl FnOnce(&mut RowsWriter<BufWriter<File>>) -> Result<Option<R>>,
) -> Result<Option<R>> {
    let failed = |error: io::Error| Error::new(ErrorKind::Backend, error.to_string());
    let folder = parent(target);
    let path = folder.join(format!("{}{:032x}{}", FRESH.0, names::unique(), FRESH.1));
    let file = File::create_new(&path).map_err(failed)?;
    let mut fresh = Fresh { path, placed: false };
    let mut writer = RowsWriter::new(BufWriter::new(file), dim)?;
    let Some(filled) = fill(&mut writer)? else { return Ok(None) };
    let file = writer.finish()?.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().and_then(|()| fs::rename(&fresh.path, target)).map_err(failed)?;
    fresh.placed = true;
    sync_folder(folder).map_err(failed)?;
    Ok(Some(filled))
}

/// Waits until nobody else writes into a folder, and removes what somebody has left who could not finish.
fn lock(folder: &Path) -> io::Result<File> {
    let path = folder.join(LOCK);
    if fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other(format!("{LOCK} is to be a plain file")));
    }
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    file.lock()?;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(FRESH.0) && name.ends_with(FRESH.1)) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(folder.join(name));
        }
    }
    Ok(file)
}

/// A new name in a folder is sure once the folder is synced; systems that cannot sync folders need not.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Nothing lies there, or nothing can.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory
    )
}

/// Size, time of change and number of a file.
fn stamp(metadata: &Metadata) -> String {
    let time = metadata.modified().map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    });
    let (_, number) = identity(metadata);
    format!("{:x}-{time}-{number:x}", metadata.len())
}

/// What a file is called by the system: the number of its device, and its own; zeros where that cannot be known.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// What a file is called by the system: the number of its device, and its own; zeros where that cannot be known.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// The generation of a file and of the ids beside it.
fn of_marks(mark: String, ids: Option<String>) -> Generation {
    Generation::Name(match ids {
        Some(ids) => format!("{mark}+{ids}").into(),
        None => mark.into(),
    })
}

/// The generation of several files.
fn of_parts(parts: &[Part]) -> Generation {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        for text in [&part.name, &part.mark] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    Generation::Name(format!("parts:{}", hasher.finalize()).into())
}

/// A path as a URI.
fn uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    let bytes = path.as_os_str().as_encoded_bytes();
    let bytes = if cfg!(windows) { bytes.strip_prefix(br"\\?\").unwrap_or(bytes) } else { bytes };
    if !bytes.starts_with(b"/") {
        uri.push('/');
    }
    for &byte in bytes {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(byte.into()),
            b'\\' if cfg!(windows) => uri.push('/'),
            b':' if cfg!(windows) => uri.push(':'),
            _ if byte.is_ascii_alphanumeric() => uri.push(byte.into()),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
