//! Collections in object stores: S3, Google Cloud Storage, Azure, HTTP.

pub(crate) mod access;
mod blob;
mod shelf;
mod store;

use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_types::{Error, ErrorKind, Job, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use crate::backend::{Backend, Description, Generation, Ids, Rows, Sink};
use crate::formats::{self, Columns, Format, RowsWriter, Shape};
use crate::fs;
use crate::names;
use crate::object::access::{Access, Patience, Trouble, stamp};
use crate::object::blob::ObjectBlob;
use crate::object::store::Store;

pub use shelf::ObjectShelf;
pub use store::ObjectOptions;

/// What an object of ids beside an array ends with, before its own ending.
const IDS: &str = ".ids";

/// Collections in an object store: objects `docs.npy`, `docs.fvecs`, `docs.parquet`, `docs.ruvec` and `docs.rows` in a
/// folder of a bucket are collection `docs`.
///
/// In keys, what is no letter of ASCII, no digit, no `-`, `_` or inner dot is `%XX` for each byte, as in the files of
/// [`FsBackend`](crate::FsBackend). Ids of an array are its row numbers, or those in `docs.ids.npy`. An address that ends
/// with one of these endings means that object alone: so it goes with plain web servers, which do not tell what there is.
///
/// The generation is the ETag, or else time and size. Objects are read in parts, several at once; a request that fails is
/// tried again, and goes on where it broke off. Nothing is asked of the network before the first call, and never anything
/// but of the address that is given; see [`ObjectOptions::from_machine`] for the one exception.
///
/// ```no_run
/// use limnion_lake::{Backend, ObjectOptions, ObjectStoreBackend};
///
/// let options = ObjectOptions { from_env: true, ..ObjectOptions::default() };
/// let backend = ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &options)?;
/// for collection in backend.collections()? {
///     println!("{collection}: {:?}", backend.describe(&collection)?);
/// }
/// # Ok::<(), limnion_types::Error>(())
/// ```
pub struct ObjectStoreBackend {
    access: Access,
    folder: Path,
    /// The one object that there is for it, if it was given as an address.
    only: Option<Only>,
    columns: Columns,
    /// In which format collections were found.
    known: Mutex<HashMap<String, Format>>,
    /// What objects were found to have.
    shapes: Mutex<HashMap<String, (Generation, Shape)>>,
}

struct Only {
    collection: String,
    key: Path,
    format: Format,
}

/// The objects of a collection.
struct Found {
    format: Format,
    object: Arc<ObjectMeta>,
    ids: Option<Arc<ObjectMeta>>,
}

impl Found {
    fn generation(&self) -> Generation {
        Generation::Name(match &self.ids {
            Some(ids) => format!("{} {}", stamp(&self.object), stamp(ids)).into(),
            None => stamp(&self.object).into(),
        })
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key in a folder. Names are encoded already, and keep their percent signs.
fn key_in(folder: &Path, name: &str) -> Result<Path> {
    let whole = if folder.as_ref().is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    Path::parse(&whole).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, format!("{whole:?} cannot be the key of an object: {error}"))
    })
}

fn folder_path(folder: &str) -> Result<Path> {
    key_in(&Path::default(), folder.trim_matches('/'))
}

/// The name of an object in its folder.
fn file_name(key: &Path) -> &str {
    key.as_ref().rsplit('/').next().unwrap_or_default()
}

fn patience(options: &ObjectOptions) -> Patience {
    let usual = Patience::default();
    Patience {
        attempts: options.attempts.unwrap_or(usual.attempts).max(1),
        silence: options.silence.unwrap_or(usual.silence),
        ..usual
    }
}

impl ObjectStoreBackend {
    /// The collections in a folder of a bucket: `s3://bucket/folder`, `gs://bucket/folder`, `az://container@account/folder`,
    /// `https://host/folder/docs.parquet`, `file:///folder`.
    ///
    /// # Errors
    /// `InvalidArgument` for an address or settings that cannot be used.
    pub fn new(name: impl Into<String>, url: &str, options: &ObjectOptions) -> Result<Self> {
        let (store, path) = Store::at(url, options)?;
        let named = file_name(&path).rsplit_once('.').filter(|_| !url.ends_with('/'));
        let (Some((stem, _)), Some(format)) = (named, Format::of(file_name(&path))) else {
            return Ok(Self::with(name.into(), store, path, options));
        };
        let collection = names::decode(stem).unwrap_or_else(|| stem.to_owned());
        let mut backend = Self::with(name.into(), store.parent(), Path::default(), options);
        backend.only = Some(Only { collection, key: path.clone(), format });
        Ok(backend)
    }

    /// The collections in a folder of a store that is made already. `source` is a URI of that folder, the same for everybody
    /// who means the same one. Settings of the options are not looked at.
    pub fn over(
        name: impl Into<String>,
        store: Arc<dyn ObjectStore>,
        folder: &str,
        source: &str,
        options: &ObjectOptions,
    ) -> Result<Self> {
        Ok(Self::with(name.into(), Store::given(store, source), folder_path(folder)?, options))
    }

    fn with(name: String, store: Store, folder: Path, options: &ObjectOptions) -> Self {
        Self {
            access: Access { name: name.into(), store: Arc::new(store), patience: patience(options) },
            folder,
            only: None,
            columns: options.columns.clone(),
            known: Mutex::default(),
            shapes: Mutex::default(),
        }
    }

    fn key(&self, collection: &str, format: Format) -> Result<Path> {
        match &self.only {
            Some(only) => Ok(only.key.clone()),
            None => key_in(&self.folder, &format!("{}.{}", names::encode(collection), format.ending())),
        }
    }

    /// Where the ids of an array would be.
    fn ids_key(&self, key: &Path, format: Format) -> Result<Option<Path>> {
        let stem = key.as_ref().strip_suffix(".npy").filter(|_| format == Format::Npy);
        stem.map(|stem| key_in(&Path::default(), &format!("{stem}{IDS}.npy"))).transpose()
    }

    /// Where an object lies.
    fn source(&self, key: &Path) -> String {
        self.access.store.source_of(file_name(key))
    }

    fn unknown(&self, collection: &str) -> Error {
        if self.access.store.lists() || self.only.is_some() {
            // A bucket that is not there has no collections, but that is not what is wrong.
            match self.collections() {
                Ok(known) => names::unknown_collection(&self.access.name, collection, &known),
                Err(error) => error,
            }
        } else {
            names::unknown_collection(&self.access.name, collection, &[])
                .suggest("give the address of the file itself, as https://host/folder/docs.parquet")
        }
    }

    /// The objects of a collection as they are now.
    fn find(&self, collection: &str, job: Option<&Job>) -> Result<Found> {
        if names::check_collection(collection).is_err() {
            return Err(self.unknown(collection));
        }
        if let Some(only) = &self.only {
            let there =
                if only.collection == collection { self.look(collection, only.format, job)? } else { None };
            return there.ok_or_else(|| self.unknown(collection));
        }
        let known = held(&self.known).get(collection).copied();
        if let Some(format) = known {
            if let Some(found) = self.look(collection, format, job)? {
                return Ok(found);
            }
            held(&self.known).remove(collection);
        }
        let formats: Vec<Format> = Format::ALL
            .into_iter()
            .filter(|&format| format != Format::Npy || !collection.ends_with(IDS))
            .collect();
        let keys: Result<Vec<Path>> = formats.iter().map(|&format| self.key(collection, format)).collect();
        let keys = keys?;
        let (mut found, mut denied) = (Vec::new(), None);
        for (at, answer) in self.access.heads(&keys, job)?.into_iter().enumerate() {
            match answer {
                Ok(Some(_)) => found.push(at),
                Ok(None) => {}
                // So stores say about what is not there to somebody who may not list.
                Err(trouble) if trouble.denied() => denied = Some((at, trouble)),
                Err(trouble) => {
                    return Err(self.access.error(keys.get(at).map_or("", |key| key.as_ref()), &trouble));
                }
            }
        }
        match (found.as_slice(), denied) {
            (&[at], _) => {
                let format = formats.get(at).copied().unwrap_or(Format::Rows);
                held(&self.known).insert(collection.to_owned(), format);
                // With its ids, of which nothing was asked yet.
                self.look(collection, format, job)?.ok_or_else(|| self.unknown(collection))
            }
            ([], Some((at, trouble))) => {
                Err(self.access.error(keys.get(at).map_or("", |key| key.as_ref()), &trouble))
            }
            ([], _) => Err(self.unknown(collection)),
            (several, _) => {
                let named = several.iter().filter_map(|&at| keys.get(at));
                let told: Vec<String> = named.map(|key| format!("{:?}", file_name(key))).collect();
                let told = format!("collection {collection:?} lies in {}", told.join(" and "));
                Err(names::failed(&self.access.name, told)
                    .suggest("keep one of them, or give them names that differ before the ending"))
            }
        }
    }

    /// The objects of a collection, if they have that format.
    fn look(&self, collection: &str, format: Format, job: Option<&Job>) -> Result<Option<Found>> {
        let key = self.key(collection, format)?;
        let mut keys = vec![key.clone()];
        keys.extend(self.ids_key(&key, format)?);
        let mut metas = Vec::new();
        for (key, answer) in keys.iter().zip(self.access.heads(&keys, job)?) {
            metas.push(match answer {
                Ok(meta) => meta.map(Arc::new),
                // So stores say of ids that are not there.
                Err(trouble) if trouble.denied() && !metas.is_empty() => None,
                Err(trouble) => return Err(self.access.error(key.as_ref(), &trouble)),
            });
        }
        let mut metas = metas.into_iter();
        let (Some(object), ids) = (metas.next().flatten(), metas.next().flatten()) else { return Ok(None) };
        Ok(Some(Found { format, object, ids }))
    }

    /// An error about what is in an object, which says now in which.
    fn within(&self, key: &Path, error: Error) -> Error {
        let name = &self.access.name;
        if error.kind() != ErrorKind::Backend || error.message().starts_with(&format!("backend {name:?}")) {
            return error;
        }
        names::retold(name, format_args!("{:?}", key.as_ref()), &error)
    }

    fn blob<'a>(&'a self, object: &Arc<ObjectMeta>, ahead: bool, job: Option<&'a Job>) -> ObjectBlob<'a> {
        ObjectBlob::new(&self.access, object.clone(), ahead, job)
    }

    fn shape(&self, collection: &str, found: &Found, blob: &ObjectBlob<'_>) -> Result<Shape> {
        let generation = found.generation();
        if let Some((_, shape)) = held(&self.shapes).get(collection).filter(|(of, _)| *of == generation) {
            return Ok(*shape);
        }
        let shape = formats::shape(found.format, blob, &self.columns)
            .map_err(|error| self.within(&found.object.location, error))?;
        held(&self.shapes).insert(collection.to_owned(), (generation, shape));
        Ok(shape)
    }

    fn description(&self, found: &Found, shape: Shape) -> Description {
        let (generation, source) = (found.generation(), self.source(&found.object.location));
        Description { dim: shape.dim, rows: shape.rows, generation, metric: None, source }
    }

    /// Hands over the rows, with their ids where those lie beside them.
    fn read(
        &self,
        found: &Found,
        blob: &ObjectBlob<'_>,
        rows: usize,
        take: &mut dyn FnMut(Rows) -> Result<()>,
        job: &Job,
    ) -> Result<()> {
        let read = |take: &mut dyn FnMut(Rows) -> Result<()>| {
            formats::read(found.format, blob, &self.columns, take, job)
                .map_err(|error| self.within(&found.object.location, error))
        };
        let Some(beside) = &found.ids else { return read(take) };
        let ids = formats::read_ids_npy(&self.blob(beside, true, Some(job)))
            .map_err(|error| self.within(&beside.location, error))?;
        if ids.len() != rows {
            let (ids, object) = (ids.len(), file_name(&found.object.location));
            let problem = format!("has {ids} ids, and {object:?} has {rows} rows");
            return Err(self.within(&beside.location, Error::new(ErrorKind::Backend, problem)));
        }
        let mut left = ids.as_slice();
        read(&mut |rows| {
            let (now, later) = left.split_at_checked(rows.ids.len()).unwrap_or((left, &[]));
            left = later;
            take(Rows { ids: Ids::Numbers(now.to_vec()), vectors: rows.vectors })
        })
    }

    /// Whether objects that were read are still those that are there, as far as reading them has not told already.
    fn is_still(&self, collection: &str, found: &Found, job: &Job) -> Result<bool> {
        let certain = |meta: &ObjectMeta| meta.e_tag.as_deref().is_some_and(|tag| !tag.starts_with("W/"));
        if found.ids.is_none() && found.format != Format::Npy && certain(&found.object) {
            return Ok(true);
        }
        let now = self.look(collection, found.format, Some(job))?;
        Ok(now.is_some_and(|now| now.generation() == found.generation()))
    }

    /// Puts a collection there, in place of the one of that name: whoever reads it sees the one or the other.
    ///
    /// # Errors
    /// `InvalidArgument` for vectors that are not finite or not as many as the ids, `DuplicateId`, `Backend` where the
    /// collection lies in an object of another format, or the store does not take it.
    pub fn put_rows(&self, collection: &str, rows: Rows, dim: usize) -> Result<()> {
        names::check_collection(collection)?;
        fs::check(&rows, dim)?;
        if let Some(only) = self.only.as_ref().filter(|only| only.collection != collection) {
            let told = format!("the address is that of collection {:?} alone", only.collection);
            return Err(names::failed(&self.access.name, told).suggest("give the address of the folder"));
        }
        let there = match self.find(collection, None) {
            Ok(found) => Some(found.object.location.clone()),
            Err(error) if error.kind() == ErrorKind::UnknownCollection => None,
            Err(error) => return Err(error),
        };
        let key = self.key(collection, Format::Rows)?;
        let other = there.unwrap_or_else(|| key.clone());
        if other != key || Format::of(file_name(&key)) != Some(Format::Rows) {
            let told = format!("collection {collection:?} lies in {:?}", file_name(&other));
            return Err(names::failed(&self.access.name, told)
                .suggest("delete it first, or write to another collection: limnion writes .rows"));
        }
        let mut writer = RowsWriter::new(Cursor::new(Vec::new()), dim)?;
        writer.push(rows)?;
        self.access.put(&key, writer.finish()?.into_inner())?;
        if self.only.is_none() {
            held(&self.known).insert(collection.to_owned(), Format::Rows);
        }
        Ok(())
    }

    /// Removes a collection, and says whether it was there.
    ///
    /// # Errors
    /// `Backend`.
    pub fn delete(&self, collection: &str) -> Result<bool> {
        let found = match self.find(collection, None) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::UnknownCollection => return Ok(false),
            Err(error) => return Err(error),
        };
        held(&self.known).remove(collection);
        held(&self.shapes).remove(collection);
        let gone = self.access.delete(&found.object.location)?;
        if let Some(ids) = &found.ids {
            self.access.delete(&ids.location)?;
        }
        Ok(gone)
    }
}

impl Backend for ObjectStoreBackend {
    fn name(&self) -> &str {
        &self.access.name
    }

    fn collections(&self) -> Result<Vec<String>> {
        if let Some(only) = &self.only {
            let there = self.access.head(&only.key, None)?;
            return Ok(there.map(|_| only.collection.clone()).into_iter().collect());
        }
        if !self.access.store.lists() {
            return Err(names::failed(&self.access.name, "a web server does not tell what there is")
                .suggest("ask for a collection by its name, or give the address of the file itself"));
        }
        let mut collections = BTreeSet::new();
        for object in self.access.list(&self.folder)? {
            let name = file_name(&object.location);
            let Some((stem, _)) = name.rsplit_once('.') else { continue };
            match Format::of(name) {
                None => continue,
                Some(Format::Npy) if stem.ends_with(IDS) => continue,
                Some(_) => {}
            }
            collections.extend(names::decode(stem).filter(|name| names::check_collection(name).is_ok()));
        }
        Ok(collections.into_iter().collect())
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let found = self.find(collection, None)?;
        let shape = self.shape(collection, &found, &self.blob(&found.object, false, None))?;
        Ok(self.description(&found, shape))
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        Ok(self.find(collection, None)?.generation())
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let found = self.find(collection, Some(job))?;
        let blob = self.blob(&found.object, true, Some(job));
        let shape = self.shape(collection, &found, &blob)?;
        sink.begin(&self.description(&found, shape))?;
        let mut refused = None;
        let read = self.read(
            &found,
            &blob,
            shape.rows,
            &mut |rows| sink.push(rows).inspect_err(|error| refused = Some(error.clone())),
            job,
        );
        // What the sink has to say comes as it was said.
        if let Some(refused) = refused {
            return Err(refused);
        }
        read?;
        if self.is_still(collection, &found, job)? {
            return Ok(());
        }
        Err(self.access.error(found.object.location.as_ref(), &Trouble::Changed))
    }
}
