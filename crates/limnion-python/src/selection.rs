//! The rows that a search may find, as Python names them, and as an index wants them.

use std::sync::{Arc, Mutex};

use limnion_index::{Exclusion, FlatIndex, GraphIndex, HammingIndex, IvfIndex, Selection};
use limnion_types::Result;
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyRange, PyTuple};
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::args;
use crate::errors::{invalid_argument, invalid_type};

/// What is asked of an index to select rows of it.
pub(crate) trait Selecting {
    fn revision(&self) -> u64;
    fn ids(&self) -> Vec<u64>;
    fn rows(&self) -> usize;
    fn select_ids(&self, ids: &[u64]) -> Selection;
    fn select_mask(&self, mask: &[bool]) -> Result<Selection>;
    fn select_all_but(&self, ids: &[u64]) -> Selection;
}

macro_rules! selecting {
    ($($index:ty),*) => {$(
        impl Selecting for $index {
            fn revision(&self) -> u64 {
                self.revision()
            }
            fn ids(&self) -> Vec<u64> {
                self.ids()
            }
            fn rows(&self) -> usize {
                self.len()
            }
            fn select_ids(&self, ids: &[u64]) -> Selection {
                self.select_ids(ids)
            }
            fn select_mask(&self, mask: &[bool]) -> Result<Selection> {
                self.select_mask(mask)
            }
            fn select_all_but(&self, ids: &[u64]) -> Selection {
                self.select_all_but(ids)
            }
        }
    )*};
}

selecting!(FlatIndex, IvfIndex, GraphIndex, HammingIndex);

/// The rows that a search may find.
pub(crate) enum Where {
    /// One bool a row, in the order of the index's ids.
    Mask(Vec<bool>),
    Ids(Vec<u64>),
    Bitmap(RoaringTreemap),
    AllBut(Exclusion),
    /// What `select` has made.
    Selected(Arc<Selected>),
}

impl Where {
    pub(crate) fn take(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(selected) = given.cast::<PySelection>() {
            return Ok(Self::Selected(selected.get().0.clone()));
        }
        if let Some(bitmap) = bitmap("where", given)? {
            return Ok(Self::Bitmap(bitmap));
        }
        let wrong = |came: String| {
            let message = format!(
                "where must be an array of ids, a boolean mask of shape (n,), a roaring bitmap or a Selection, got {came}"
            );
            invalid_type(given.py(), message, None)
        };
        let array = args::as_array(given).map_err(|_| wrong(args::type_name(given)))?;
        if let Some(mask) = args::mask(&array)? {
            return Ok(Self::Mask(mask));
        }
        let sequence = !given.is_instance_of::<PyUntypedArray>();
        if array.ndim() != 1 || !(sequence || matches!(array.dtype().kind(), b'u' | b'i')) {
            return Err(wrong(if sequence { args::type_name(given) } else { args::came(&array) }));
        }
        args::ids("where", given).map(Self::Ids)
    }

    pub(crate) fn select(&self, index: &impl Selecting) -> Result<Arc<Selection>> {
        Ok(Arc::new(match self {
            Self::Mask(mask) => index.select_mask(mask)?,
            Self::Ids(ids) => index.select_ids(ids),
            // Never more ids in a list than there are rows, however many a bitmap holds.
            Self::Bitmap(bitmap) if bitmap.len() <= index.rows() as u64 => {
                index.select_ids(&bitmap.iter().collect::<Vec<_>>())
            }
            Self::Bitmap(bitmap) => index
                .select_mask(&index.ids().into_iter().map(|id| bitmap.contains(id)).collect::<Vec<_>>())?,
            Self::AllBut(exclusion) => index.select_all_but(exclusion.ids()),
            Self::Selected(selected) => return selected.select(index),
        }))
    }
}

/// Rows that were named once, and where they lie in the index that was asked last.
pub(crate) struct Selected {
    named: Where,
    exclusion: Exclusion,
    last: Mutex<Option<(u64, Arc<Selection>)>>,
}

impl Selected {
    fn select(&self, index: &impl Selecting) -> Result<Arc<Selection>> {
        let revision = index.revision();
        // Who holds it, a thread that was lost in a fork among them, is not waited for.
        if let Ok(last) = self.last.try_lock()
            && let Some((_, selection)) = last.as_ref().filter(|(known, _)| *known == revision)
        {
            return Ok(selection.clone());
        }
        let mut selection = self.named.select(index)?;
        if !self.exclusion.is_empty() {
            selection = Arc::new(selection.without(&index.select_ids(self.exclusion.ids())));
        }
        if let Ok(mut last) = self.last.try_lock() {
            *last = Some((revision, selection.clone()));
        }
        Ok(selection)
    }
}

/// Rows that searches may find, named once and found in the index once: what `select` returns, and `where=` takes.
///
/// It names ids, so it stays right when the index changes: the next search then looks them up again.
#[pyclass(frozen, name = "Selection", module = "limnion._native")]
pub(crate) struct PySelection(Arc<Selected>);

impl PySelection {
    /// Selects rows of an index: those of `named`, or all, without those of `exclusion`.
    pub(crate) fn make(index: &impl Selecting, named: Option<Where>, exclusion: Exclusion) -> Result<Self> {
        let selected = match named {
            None => Selected {
                named: Where::AllBut(exclusion),
                exclusion: Exclusion::default(),
                last: Mutex::default(),
            },
            // A mask is about the rows as they are now.
            Some(Where::Mask(mask)) => {
                index.select_mask(&mask)?;
                let ids = index.ids().into_iter().zip(mask).filter_map(|(id, allowed)| allowed.then_some(id));
                Selected { named: Where::Ids(ids.collect()), exclusion, last: Mutex::default() }
            }
            Some(named) => Selected { named, exclusion, last: Mutex::default() },
        };
        selected.select(index)?;
        Ok(Self(Arc::new(selected)))
    }
}

#[pymethods]
impl PySelection {
    /// How many rows it allowed in the index when it was last used.
    fn __len__(&self) -> usize {
        let last = self.0.last.try_lock().ok();
        last.and_then(|last| last.as_ref().map(|(_, selection)| selection.len())).unwrap_or(0)
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        format!("Selection({} rows)", self.__len__())
    }
}

/// The ids that a search is not to find.
pub(crate) fn exclusion(given: Option<&Bound<'_, PyAny>>) -> PyResult<Exclusion> {
    let Some(given) = given else { return Ok(Exclusion::default()) };
    let Some(bitmap) = bitmap("exclude", given)? else {
        return args::id_or_ids("exclude", given).map(Exclusion::new);
    };
    let mut ids = Vec::new();
    let count = usize::try_from(bitmap.len()).unwrap_or(usize::MAX);
    ids.try_reserve_exact(count).map_err(|_| PyMemoryError::new_err(()))?;
    ids.extend(bitmap);
    Ok(Exclusion::new(ids))
}

/// A roaring bitmap: whatever has `serialize()`, which gives the portable format, of 32 or 64 bits.
fn bitmap(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Option<RoaringTreemap>> {
    let usual = given.is_instance_of::<PyUntypedArray>()
        || given.is_instance_of::<PyList>()
        || given.is_instance_of::<PyTuple>()
        || given.is_instance_of::<PyRange>();
    if usual {
        return Ok(None);
    }
    let Ok(serialize) = given.getattr("serialize") else { return Ok(None) };
    let serialized = serialize.call0()?;
    let came = args::type_name(given);
    let bytes = serialized.cast::<PyBytes>().map_err(|_| {
        let got = args::type_name(&serialized);
        invalid_type(
            given.py(),
            format!("{name} must be a roaring bitmap, got {came} that serializes to {got}"),
            None,
        )
    })?;
    parse(bytes.as_bytes()).map(Some).ok_or_else(|| {
        let message =
            format!("{name} must be a roaring bitmap, got {came} whose bytes are not in the portable format");
        invalid_argument(given.py(), message, None)
    })
}

fn parse(bytes: &[u8]) -> Option<RoaringTreemap> {
    let mut rest = bytes;
    match RoaringBitmap::deserialize_from(&mut rest) {
        Ok(small) if rest.is_empty() => Some(RoaringTreemap::from_bitmaps([(0, small)])),
        _ => {
            let mut rest = bytes;
            let large = RoaringTreemap::deserialize_from(&mut rest).ok()?;
            rest.is_empty().then_some(large)
        }
    }
}
