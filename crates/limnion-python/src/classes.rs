//! The four classes of flat index by what they keep.

use std::ops::RangeInclusive;
use std::path::Path;

use limnion_index::{Params, Precision};
use limnion_types::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::errors::invalid_type;

/// A class of `limnion.indexes`, and what an index of that class keeps.
#[derive(Clone, Copy)]
pub(crate) struct Class {
    name: &'static str,
    least_bits: u8,
    most_bits: u8,
    originals: &'static [Option<Precision>],
}

const CLASSES: [Class; 4] = [
    Class { name: "FlatF32Index", least_bits: 0, most_bits: 0, originals: &[Some(Precision::F32)] },
    Class { name: "RabitqIndex", least_bits: 1, most_bits: 1, originals: &[None] },
    Class {
        name: "RabitqPlusIndex",
        least_bits: 1,
        most_bits: 8,
        originals: &[Some(Precision::F32), Some(Precision::F16)],
    },
    Class {
        name: "RabitqAsymIndex",
        least_bits: 2,
        most_bits: 8,
        originals: &[None, Some(Precision::F32), Some(Precision::F16)],
    },
];

impl Class {
    /// The one that `class` is or derives from.
    pub(crate) fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        for base in class.mro() {
            let name = base.cast::<PyType>()?.name()?;
            if let Some(found) = CLASSES.into_iter().find(|known| name == known.name) {
                return Ok(found);
            }
        }
        let names = CLASSES.map(|class| class.name).join(", ");
        Err(invalid_type(class.py(), format!("an index must be of one of the classes {names}"), None))
    }

    /// The first that can be built with `params`.
    pub(crate) fn that_fits(params: &Params) -> Result<Self> {
        if let Some(class) = CLASSES.into_iter().find(|class| class.fits(params)) {
            return Ok(class);
        }
        let message = match params.bits {
            0 => "bits=0 must go with originals='f32': without codes the vectors are all there is".to_owned(),
            bits => format!("bits must be 0 to 8, got {bits}"),
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// The class in Python.
    pub(crate) fn in_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyType>> {
        Ok(py.import("limnion.indexes")?.getattr(self.name)?.cast_into()?)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> RangeInclusive<u8> {
        self.least_bits..=self.most_bits
    }

    fn fits(&self, params: &Params) -> bool {
        self.bits().contains(&params.bits) && self.originals.contains(&params.originals)
    }

    /// Whether an index of this class can be built with `params`.
    pub(crate) fn check(&self, params: &Params) -> Result<()> {
        let Self { name, least_bits, most_bits, originals } = self;
        let message = if !self.bits().contains(&params.bits) {
            format!("bits must be {least_bits} to {most_bits} for a {name}, got {}", params.bits)
        } else if !originals.contains(&params.originals) {
            let quoted = |kept: &Option<Precision>| {
                kept.map_or("None".to_owned(), |kept| format!("'{}'", kept.as_str()))
            };
            let allowed = originals.iter().map(quoted).collect::<Vec<_>>().join(" or ");
            format!("originals must be {allowed} for a {name}, got {}", quoted(&params.originals))
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// Whether a file that holds an index with `params` is one of this class.
    pub(crate) fn check_file(&self, params: &Params, path: &Path) -> Result<()> {
        if self.fits(params) {
            return Ok(());
        }
        let right = CLASSES.iter().find(|class| class.fits(params)).map_or("newer class", |class| class.name);
        Err(not_of_class(path, self.name, right))
    }
}

/// The error for a file that holds an index of another class than the one that was to load it.
pub(crate) fn not_of_class(path: &Path, wanted: &str, right: &str) -> Error {
    let with_article =
        |name: &str| if name.starts_with('I') { format!("an {name}") } else { format!("a {name}") };
    let (must, got) = (with_article(wanted), with_article(right));
    let message = format!("{} must hold {must}, got {got}", path.display());
    Error::new(ErrorKind::Io, message).suggest(format!("write {right}.load(path)"))
}
