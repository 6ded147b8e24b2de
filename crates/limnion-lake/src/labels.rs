//! Between the ids of a collection and the numbers that an index keeps.

use std::collections::HashMap;
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};

use crate::backend::{Id, Ids};

/// What the rows of an index are called outside.
#[derive(Debug, Clone)]
pub(crate) enum Labels {
    /// As in the index.
    Numbers,
    /// By names, which stand here in the place that the index's id says.
    Names { names: Vec<Arc<str>>, places: HashMap<Arc<str>, u64>, free: Vec<u64> },
}

impl Labels {
    /// Labels of the kind of `ids`, for an index of as many rows that is numbered from 0 where they are names.
    pub(crate) fn new(ids: &Ids) -> Result<Self> {
        let Ids::Names(names) = ids else { return Ok(Self::Numbers) };
        let mut places = HashMap::with_capacity(names.len());
        for (place, name) in names.iter().enumerate() {
            if places.insert(name.clone(), place as u64).is_some() {
                let message = format!("ids must be different, got {name:?} twice");
                return Err(Error::new(ErrorKind::DuplicateId, message));
            }
        }
        Ok(Self::Names { names: names.clone(), places, free: Vec::new() })
    }

    /// What an id of the index is called.
    pub(crate) fn id(&self, inside: u64) -> Id {
        match self {
            Self::Numbers => Id::Number(inside),
            Self::Names { names, .. } => {
                Id::Name(names.get(inside as usize).cloned().unwrap_or_else(|| "".into()))
            }
        }
    }

    /// The index's ids of those that are known; the others are left out.
    pub(crate) fn known(&self, ids: &Ids) -> Result<Vec<u64>> {
        match (self, ids) {
            (Self::Numbers, Ids::Numbers(ids)) => Ok(ids.clone()),
            (Self::Names { places, .. }, Ids::Names(names)) => {
                Ok(names.iter().filter_map(|name| places.get(name).copied()).collect())
            }
            (_, ids) if ids.is_empty() => Ok(Vec::new()),
            (Self::Numbers, Ids::Names(_)) => Err(mixed("numbers", "names")),
            (Self::Names { .. }, Ids::Numbers(_)) => Err(mixed("names", "numbers")),
        }
    }

    /// The index's id of each, made where there is none.
    pub(crate) fn assign(&mut self, ids: &Ids) -> Result<Vec<u64>> {
        match (self, ids) {
            (Self::Numbers, Ids::Numbers(ids)) => Ok(ids.clone()),
            (Self::Names { names, places, free }, Ids::Names(new)) => Ok(new
                .iter()
                .map(|name| {
                    *places.entry(name.clone()).or_insert_with(|| match free.pop() {
                        Some(place) => {
                            if let Some(slot) = names.get_mut(place as usize) {
                                *slot = name.clone();
                            }
                            place
                        }
                        None => {
                            names.push(name.clone());
                            names.len() as u64 - 1
                        }
                    })
                })
                .collect()),
            (_, ids) if ids.is_empty() => Ok(Vec::new()),
            (Self::Numbers, Ids::Names(_)) => Err(mixed("numbers", "names")),
            (Self::Names { .. }, Ids::Numbers(_)) => Err(mixed("names", "numbers")),
        }
    }

    /// Forgets names that are gone.
    pub(crate) fn forget(&mut self, ids: &Ids) {
        if let (Self::Names { places, free, .. }, Ids::Names(gone)) = (self, ids) {
            free.extend(gone.iter().filter_map(|name| places.remove(name)));
        }
    }

    /// Bytes on the heap, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Numbers => 0,
            Self::Names { names, .. } => names.iter().map(|name| name.len() + 80).sum(),
        }
    }
}

fn mixed(kept: &str, came: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the ids of the collection are {kept}, got {came}"))
}
