//! Between the ids of a collection and the numbers that an index keeps.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use limnion_types::{Error, ErrorKind, Result};

use crate::backend::{Id, Ids};

/// What the rows of an index are called outside.
#[derive(Debug, Clone)]
pub(crate) enum Labels {
    /// As in the index.
    Numbers,
    /// By names, which stand here in the place that the index's id says.
    Names {
        names: Vec<Arc<str>>,
        /// Found out when it is first needed: who only searches does without.
        places: OnceLock<Places>,
        free: Vec<u64>,
    },
}

/// Where each name stands.
pub(crate) type Places = HashMap<Arc<str>, u64>;

fn places_of(names: &[Arc<str>], free: &[u64]) -> Places {
    let free: HashSet<u64> = free.iter().copied().collect();
    let taken = names.iter().zip(0..).filter(|(_, place)| !free.contains(place));
    taken.map(|(name, place)| (name.clone(), place)).collect()
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
        Ok(Self::Names { names: names.clone(), places: places.into(), free: Vec::new() })
    }

    /// Labels whose names and free places are known.
    pub(crate) fn read(names: Vec<Arc<str>>, free: Vec<u64>) -> Self {
        Self::Names { names, places: OnceLock::new(), free }
    }

    /// Whether no two rows have one name.
    pub(crate) fn are_different(&self) -> bool {
        match self {
            Self::Numbers => true,
            Self::Names { names, places, free } => {
                places.get_or_init(|| places_of(names, free)).len() + free.len() == names.len()
            }
        }
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
            (Self::Names { names, places, free }, Ids::Names(wanted)) => {
                let places = places.get_or_init(|| places_of(names, free));
                Ok(wanted.iter().filter_map(|name| places.get(name).copied()).collect())
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
            (Self::Names { names, places, free }, Ids::Names(new)) => {
                let mut known = places.take().unwrap_or_else(|| places_of(names, free));
                let mut place = |name: &Arc<str>| {
                    *known.entry(name.clone()).or_insert_with(|| match free.pop() {
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
                };
                let assigned = new.iter().map(&mut place).collect();
                *places = known.into();
                Ok(assigned)
            }
            (_, ids) if ids.is_empty() => Ok(Vec::new()),
            (Self::Numbers, Ids::Names(_)) => Err(mixed("numbers", "names")),
            (Self::Names { .. }, Ids::Numbers(_)) => Err(mixed("names", "numbers")),
        }
    }

    /// Forgets names that are gone.
    pub(crate) fn forget(&mut self, ids: &Ids) {
        if let (Self::Names { names, places, free }, Ids::Names(gone)) = (self, ids)
            && !gone.is_empty()
        {
            let mut known = places.take().unwrap_or_else(|| places_of(names, free));
            free.extend(gone.iter().filter_map(|name| known.remove(name)));
            *places = known.into();
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
