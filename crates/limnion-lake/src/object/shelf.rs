//! A folder of a bucket in which bundles are kept.

use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::object::access::{Access, Trouble};
use crate::object::store::Store;
use crate::object::{ObjectOptions, file_name, folder_path, key_in, patience};
use crate::shelf::Shelf;

/// How often an object is read that is replaced all the time.
const READINGS: u32 = 10;

/// A folder of a bucket in which bundles are kept.
///
/// ```no_run
/// use limnion_lake::{ObjectOptions, ObjectShelf, Shelf};
///
/// let options = ObjectOptions { from_env: true, ..ObjectOptions::default() };
/// let shelf = ObjectShelf::new("s3://bucket/bundles", &options)?;
/// shelf.put("docs.json", b"{}")?;
/// # Ok::<(), limnion_types::Error>(())
/// ```
pub struct ObjectShelf {
    access: Access,
    folder: Path,
}

impl ObjectShelf {
    /// The folder at an address, as [`ObjectStoreBackend::new`](crate::ObjectStoreBackend::new) takes it.
    ///
    /// # Errors
    /// `InvalidArgument` for an address or settings that cannot be used.
    pub fn new(url: &str, options: &ObjectOptions) -> Result<Self> {
        let (store, folder) = Store::at(url, options)?;
        Ok(Self::with(store, folder, options))
    }

    /// A folder of a store that is made already; `source` is a URI of that folder.
    ///
    /// # Errors
    /// `InvalidArgument` for a folder that cannot be one.
    pub fn over(
        store: Arc<dyn ObjectStore>,
        folder: &str,
        source: &str,
        options: &ObjectOptions,
    ) -> Result<Self> {
        Ok(Self::with(Store::given(store, source), folder_path(folder)?, options))
    }

    fn with(store: Store, folder: Path, options: &ObjectOptions) -> Self {
        let name = store.source().into();
        Self { access: Access { name, store: Arc::new(store), patience: patience(options) }, folder }
    }

    fn key(&self, name: &str) -> Result<Path> {
        let odd = |byte: u8| !(byte.is_ascii_alphanumeric() || b".-_%+".contains(&byte));
        if name.is_empty() || name.starts_with('.') || name.bytes().any(odd) {
            return Err(Error::new(ErrorKind::Lake, format!("{name:?} cannot be the name of an object")));
        }
        key_in(&self.folder, name)
    }
}

/// What goes wrong on a shelf is of kind `Lake`.
fn of_lake(error: Error) -> Error {
    let told = Error::new(ErrorKind::Lake, error.message());
    match error.suggestion() {
        _ if error.kind() != ErrorKind::Backend => error,
        Some(suggestion) => told.suggest(suggestion),
        None => told,
    }
}

impl Shelf for ObjectShelf {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.access.put(&self.key(name)?, bytes.to_vec()).map_err(of_lake)
    }

    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let key = self.key(name)?;
        let mut tries = 0;
        loop {
            let Some(meta) = self.access.head(&key, None).map_err(of_lake)? else { return Ok(None) };
            let range = 0..meta.size.min(limit);
            match self.access.read(&Arc::new(meta), &range, None)? {
                Ok(bytes) => return Ok(Some(bytes)),
                // Who replaces it in the middle of that does not do so all the time.
                Err(Trouble::Changed) if tries < READINGS => tries += 1,
                Err(trouble) => return Err(of_lake(self.access.error(key.as_ref(), &trouble))),
            }
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let objects = self.access.list(&self.folder).map_err(of_lake)?;
        let names = objects.iter().map(|object| file_name(&object.location));
        let mut names: Vec<String> = names.filter(|name| self.key(name).is_ok()).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.access.delete(&self.key(name)?).map_err(of_lake)?;
        Ok(())
    }

    fn place(&self) -> String {
        self.access.store.source()
    }
}
